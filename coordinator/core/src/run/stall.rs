//! When nothing moves: who keeps the others waiting.

use super::{Now, Phase, Run, Stage};
use crate::event::{Action, Activity, Heartbeat, Notice, Position, WorkerId};

/// However short the timeout, some steps are long.
const STEPS_OF_PATIENCE: f64 = 10.0;

/// What is known of one rank.
#[derive(Debug)]
struct Sight {
    worker: WorkerId,
    rank: u32,
    host: String,
    position: Position,
    activity: Activity,
    /// Since when it has been doing what it does.
    since: Now,
}

impl Run {
    /// Names the rank that holds up the others, and goes on without it.
    pub(super) fn find_stall(&mut self, now: Now, out: &mut Vec<Action>) {
        let patience = self.recipe.stall_timeout.max(self.some_steps());
        if !matches!(self.phase, Phase::Training(_) | Phase::Forming(_)) {
            return self.find_stuck_newcomer(now, patience, out);
        }
        let sights = self.sights();
        let moved = sights.iter().map(|sight| sight.since).max();
        if moved.is_none_or(|moved| now.saturating_sub(moved) < patience) {
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

    /// As long as a few steps take, whatever a worker says of that.
    pub(super) fn some_steps(&self) -> Now {
        let seconds = STEPS_OF_PATIENCE * self.step_seconds;
        Now::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// The ranks that may hold up others. A rank that only waits for the coordinator does not.
    fn sights(&self) -> Vec<Sight> {
        let granted = match &self.phase {
            Phase::Training(training) => training.granted,
            _ => 0,
        };
        let sight = |(worker, member, seat): (WorkerId, &super::Member, &super::Seat)| {
            let current =
                |(_, heartbeat): &(Now, Heartbeat)| heartbeat.generation == self.generation;
            let (position, activity, since) = match member.heartbeat.filter(current) {
                Some((at, heartbeat)) => (
                    heartbeat.position,
                    heartbeat.activity,
                    began(at, &heartbeat),
                ),
                // It has not even begun to join.
                None => (Position::start_of(0), Activity::Forming, seat.since),
            };
            let waits = activity == Activity::Idle && (seat.in_group && seat.completed >= granted);
            (!waits).then(|| Sight {
                worker,
                rank: seat.rank,
                host: member.host.clone(),
                position,
                activity,
                since: since.max(seat.since),
            })
        };
        self.seated().filter_map(sight).collect()
    }

    /// A worker that comes back says at once what it holds, unless its thread hangs in what it
    /// did before, or still decodes.
    fn find_stuck_newcomer(&mut self, now: Now, patience: Now, out: &mut Vec<Action>) {
        let stuck = self.members.iter().find_map(|(worker, member)| {
            let (began, activity) = match member.heartbeat {
                Some((at, heartbeat)) => (began(at, &heartbeat), heartbeat.activity),
                None => (member.joined, Activity::Idle),
            };
            let hangs = match activity {
                Activity::Preparing => false,
                // Whoever is new may have many files to look at.
                Activity::Idle => member.from_before,
                _ => true,
            };
            let waited = now.saturating_sub(began.max(member.joined)) >= patience;
            let stuck = member.stage == Stage::Joined && hangs && waited;
            stuck.then(|| (*worker, format!("{worker} on {}", member.host), activity))
        });
        if let Some((worker, who, activity)) = stuck {
            let line = format!("{who} came back, but is stuck in {}", word(activity));
            out.push(Action::Notify(Notice::Stalled { line: line.clone() }));
            self.put_down(now, worker, &line, out);
        }
    }
}

/// Whoever sends a heartbeat may send any number.
fn began(at: Now, heartbeat: &Heartbeat) -> Now {
    let seconds = Now::try_from_secs_f64(heartbeat.seconds).unwrap_or_default();
    at.saturating_sub(seconds)
}

/// How far a rank is within its epoch: of two that wait for each other, the one behind is
/// waited for.
fn progress(sight: &Sight) -> (Position, u8) {
    let stage = match sight.activity {
        Activity::Idle | Activity::Preparing | Activity::Forming => 0,
        Activity::DataWait => 1,
        Activity::Forward => 2,
        Activity::Backward => 3,
        Activity::Optimizer => 4,
        Activity::Validation => 5,
    };
    (sight.position, stage)
}

fn slowest(sights: &[Sight]) -> Option<&Sight> {
    sights
        .iter()
        .min_by_key(|sight| (progress(sight), sight.rank))
}

fn is_alone(sights: &[Sight], culprit: &Sight) -> bool {
    let same = |sight: &&Sight| progress(sight) == progress(culprit);
    sights.iter().filter(same).count() == 1 && sights.len() > 1
}

fn line(now: Now, sights: &[Sight], culprit: &Sight) -> String {
    let since = now.saturating_sub(culprit.since).as_secs_f64();
    let step = culprit.position.completed;
    let what = word(culprit.activity);
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
        let waiting = match first.activity {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(rank: u32, completed: u32, activity: Activity, since: u64) -> Sight {
        Sight {
            worker: WorkerId(rank.into()),
            rank,
            host: format!("host-{rank}"),
            position: Position {
                epoch: 1,
                completed,
            },
            activity,
            since: Now::from_millis(since),
        }
    }

    fn told(sights: &[Sight]) -> (String, bool) {
        let culprit = slowest(sights).unwrap();
        let line = line(Now::from_millis(10_000), sights, culprit);
        (line, is_alone(sights, culprit))
    }

    #[test]
    fn the_rank_that_is_behind_is_named_and_not_those_that_wait_for_it() {
        let sights = [
            sight(0, 412, Activity::Backward, 3_000),
            sight(1, 412, Activity::Backward, 3_100),
            sight(3, 412, Activity::DataWait, 2_800),
        ];
        let line = "rank 3 on host-3 has been in data wait at step 412 for 7.2 s; ranks 0, 1 in \
                    all-reduce";
        assert_eq!(told(&sights), (line.to_owned(), true));
    }

    #[test]
    fn a_step_behind_weighs_more_than_a_phase() {
        let sights = [
            sight(0, 5, Activity::DataWait, 2_000),
            sight(1, 4, Activity::Backward, 1_000),
        ];
        let line = "rank 1 on host-1 has been in backward and all-reduce at step 4 for 9.0 s; rank \
                    0 in data wait";
        assert_eq!(told(&sights), (line.to_owned(), true));
    }

    #[test]
    fn nobody_alone_is_to_blame_where_all_wait() {
        let both = [
            sight(0, 4, Activity::Backward, 1_000),
            sight(1, 4, Activity::Backward, 1_000),
        ];
        assert!(!told(&both).1);
        assert!(!told(&both[..1]).1);
    }

    #[test]
    fn any_number_of_seconds_is_a_time() {
        let beat = |seconds| Heartbeat {
            generation: 1,
            position: Position::start_of(1),
            activity: Activity::DataWait,
            seconds,
        };
        let at = Now::from_secs(5);
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 0.0] {
            assert_eq!(began(at, &beat(seconds)), at);
        }
        assert_eq!(began(at, &beat(7.0)), Now::ZERO);
        assert_eq!(began(at, &beat(2.0)), Now::from_secs(3));
    }
}
