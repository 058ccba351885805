//! When nothing moves: who keeps the others waiting.

use super::{Now, Phase, Run};
use crate::core::event::{Action, Activity, Heartbeat, Notice, Position, WorkerId};

/// However short the timeout, some steps are long.
const STEPS_OF_PATIENCE: f64 = 10.0;

/// What is known of one rank.
struct Sight {
    worker: WorkerId,
    rank: u32,
    host: String,
    heartbeat: Heartbeat,
    /// Since when it has been doing what it does.
    since: Now,
}

impl Run {
    /// Names the rank that holds up the others, and goes on without it.
    pub(super) fn find_stall(&mut self, now: Now, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Training(_) | Phase::Forming(_)) {
            return;
        }
        let patience = self
            .recipe
            .stall_timeout
            .max(Now::from_secs_f64(STEPS_OF_PATIENCE * self.step_seconds));
        let sights: Vec<Sight> = self
            .seated()
            .filter_map(|(worker, member, seat)| {
                let (at, heartbeat) = member.heartbeat?;
                // A rank that only waits for the coordinator holds up nobody.
                let busy = heartbeat.activity != Activity::Idle;
                busy.then(|| Sight {
                    worker,
                    rank: seat.rank,
                    host: member.host.clone(),
                    heartbeat,
                    since: at.saturating_sub(Now::from_secs_f64(heartbeat.seconds.max(0.0))),
                })
            })
            .collect();
        let moved = sights.iter().map(|sight| sight.since).max();
        let Some(moved) = moved else {
            return;
        };
        if now.saturating_sub(moved) < patience {
            return;
        }
        let Some(culprit) = slowest(&sights) else {
            return;
        };
        let line = line(now, &sights, culprit);
        let (worker, alone) = (culprit.worker, is_alone(&sights, culprit));
        out.push(Action::Notify(Notice::Stalled { line: line.clone() }));
        if alone {
            self.put_down(now, worker, &line, out);
        } else {
            self.on_broken_group(now, worker, &line, out);
        }
    }
}

/// How far a rank is within its epoch: of two that wait for each other, the one behind is
/// waited for.
fn progress(heartbeat: &Heartbeat) -> (Position, u8) {
    let stage = match heartbeat.activity {
        Activity::Idle | Activity::Preparing | Activity::Forming => 0,
        Activity::DataWait => 1,
        Activity::Forward => 2,
        Activity::Backward => 3,
        Activity::Optimizer => 4,
        Activity::Validation => 5,
    };
    (heartbeat.position, stage)
}

fn slowest(sights: &[Sight]) -> Option<&Sight> {
    sights
        .iter()
        .min_by_key(|sight| (progress(&sight.heartbeat), sight.rank))
}

fn is_alone(sights: &[Sight], culprit: &Sight) -> bool {
    let same = |sight: &&Sight| progress(&sight.heartbeat) == progress(&culprit.heartbeat);
    sights.iter().filter(same).count() == 1 && sights.len() > 1
}

fn line(now: Now, sights: &[Sight], culprit: &Sight) -> String {
    let since = now.saturating_sub(culprit.since).as_secs_f64();
    let step = culprit.heartbeat.position.completed;
    let what = word(culprit.heartbeat.activity);
    let mut line = format!(
        "rank {} on {} has been in {what} at step {step} for {since:.1} s",
        culprit.rank, culprit.host
    );
    let others: Vec<&Sight> = sights
        .iter()
        .filter(|sight| sight.rank != culprit.rank)
        .collect();
    if let Some(first) = others.first() {
        let ranks: Vec<String> = others.iter().map(|sight| sight.rank.to_string()).collect();
        let waiting = match first.heartbeat.activity {
            Activity::Backward => "all-reduce",
            activity => word(activity),
        };
        line.push_str(&format!(
            "; rank{} {} in {waiting}",
            if ranks.len() == 1 { "" } else { "s" },
            ranks.join(", ")
        ));
    }
    line
}

fn word(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "waiting for the coordinator",
        Activity::Preparing => "decoding",
        Activity::Forming => "joining the group",
        Activity::DataWait => "data wait",
        Activity::Forward => "forward",
        Activity::Backward => "backward and all-reduce",
        Activity::Optimizer => "optimizer",
        Activity::Validation => "validation",
    }
}
