//! When there is no progress: which rank the others wait for.

use super::parts::{Assignment, Member, Stage};
use super::{Now, Phase, Run};
use crate::event::{
    Activity, Fact, Heartbeat, LossCause, MemberInfo, Position, StallReport, WaitingRanks, WorkerId,
};

/// What is known of one rank.
#[derive(Debug)]
struct RankStatus {
    member: MemberInfo,
    rank: u32,
    position: Position,
    activity: Activity,
    /// Since when it has been doing what it does.
    since: Now,
}

impl Run {
    pub(super) fn on_heartbeat(&mut self, worker: WorkerId, heartbeat: Heartbeat) {
        let at = |heartbeat: &Heartbeat| (heartbeat.generation, heartbeat.position);
        if let Some(member) = self.members.get_mut(worker)
            // One that comes late says nothing of where the worker is now.
            && member.heartbeat.is_none_or(|(_, last)| at(&last) <= at(&heartbeat))
        {
            member.heartbeat = Some((self.now, heartbeat));
        }
    }

    /// Reports the rank that holds up the others, and evicts it.
    pub(super) fn find_stall(&mut self) {
        let patience = self.recipe.stall_timeout.max(self.pace.patience());
        self.find_hanging_decoder(patience);
        if !matches!(self.phase, Phase::Training(_) | Phase::Forming(_)) {
            return self.find_unresponsive_newcomer(patience);
        }
        let statuses = self.statuses();
        let moved = statuses.iter().map(|status| status.since).max();
        if moved.is_none_or(|moved| self.now.saturating_sub(moved) < patience) {
            return;
        }
        let Some(straggler) = slowest(&statuses) else {
            return;
        };
        let report = report(self.now, &statuses, straggler);
        if is_alone(&statuses, straggler) {
            return self.evict_stalled(report);
        }
        let worker = straggler.member.worker;
        self.notify(Fact::Stalled(report.clone()));
        self.on_broken_group(worker, LossCause::Stalled(Box::new(report)));
    }

    /// The ranks that may hold up others. A rank that only waits for the coordinator does not.
    fn statuses(&self) -> Vec<RankStatus> {
        let granted = match &self.phase {
            Phase::Training(training) => training.granted,
            _ => 0,
        };
        let status = |(worker, member, assignment): (WorkerId, &Member, &Assignment)| {
            let current =
                |(_, heartbeat): &(Now, Heartbeat)| heartbeat.generation == self.generation;
            let (position, activity, since) = match member.heartbeat.filter(current) {
                Some((at, heartbeat)) => (
                    heartbeat.position,
                    heartbeat.activity,
                    began(at, &heartbeat),
                ),
                // It has not even begun to join.
                None => (Position::start_of(0), Activity::Forming, assignment.since),
            };
            let waits = activity == Activity::Idle
                && (assignment.in_group && assignment.completed >= granted);
            (!waits).then(|| RankStatus {
                member: member.info(worker),
                rank: assignment.rank,
                position,
                activity,
                since: since.max(assignment.since),
            })
        };
        self.members.assigned().filter_map(status).collect()
    }

    /// A worker that comes back reports at once what it retains, unless its thread hangs in what it
    /// did before, or still decodes.
    fn find_unresponsive_newcomer(&mut self, patience: Now) {
        let stuck = self.members.iter().find_map(|(worker, member)| {
            let (began, activity) = match member.heartbeat {
                Some((at, heartbeat)) => (began(at, &heartbeat), heartbeat.activity),
                None => (member.joined, Activity::Idle),
            };
            let hangs = match activity {
                Activity::Preparing => false,
                // A new worker may have many files to scan.
                Activity::Idle => member.from_before,
                _ => true,
            };
            let waited = self.now.saturating_sub(began.max(member.joined));
            let stuck = member.stage == Stage::Joined && hangs && waited >= patience;
            stuck.then(|| StallReport {
                member: member.info(worker),
                activity,
                step: 0,
                seconds: waited.as_secs_f64(),
                waiting: None,
            })
        });
        if let Some(report) = stuck {
            self.evict_stalled(report);
        }
    }

    /// A local worker reads files of this machine, so it always has progress to report. Before
    /// anything is trained the run waits for it.
    fn find_hanging_decoder(&mut self, patience: Now) {
        if !self.initialized {
            return;
        }
        let hanging = self.members.iter().find_map(|(worker, member)| {
            let decoding = member.decoding.as_ref()?;
            let waited = self.now.saturating_sub(decoding.reported);
            let hangs = member.stage == Stage::Preparing && member.local_rank.is_some();
            (hangs && waited >= patience).then(|| StallReport {
                member: member.info(worker),
                activity: Activity::Preparing,
                step: 0,
                seconds: waited.as_secs_f64(),
                waiting: None,
            })
        });
        if let Some(report) = hanging {
            self.evict_stalled(report);
        }
    }

    fn evict_stalled(&mut self, report: StallReport) {
        let worker = report.member.worker;
        self.notify(Fact::Stalled(report.clone()));
        self.evict(worker, LossCause::Stalled(Box::new(report)));
    }
}

/// When an activity began; a heartbeat may contain any number.
fn began(at: Now, heartbeat: &Heartbeat) -> Now {
    let seconds = Now::try_from_secs_f64(heartbeat.seconds).unwrap_or_default();
    at.saturating_sub(seconds)
}

/// How far a rank is within its epoch: of two that wait for each other, the one behind is the
/// straggler.
fn progress(status: &RankStatus) -> (Position, u8) {
    let stage = match status.activity {
        Activity::Idle | Activity::Preparing | Activity::Forming => 0,
        Activity::DataWait => 1,
        Activity::Forward => 2,
        Activity::Backward => 3,
        Activity::Optimizer => 4,
        Activity::Validation => 5,
    };
    (status.position, stage)
}

fn slowest(statuses: &[RankStatus]) -> Option<&RankStatus> {
    statuses
        .iter()
        .min_by_key(|status| (progress(status), status.rank))
}

fn is_alone(statuses: &[RankStatus], straggler: &RankStatus) -> bool {
    let same = |status: &&RankStatus| progress(status) == progress(straggler);
    statuses.iter().filter(same).count() == 1 && statuses.len() > 1
}

fn report(now: Now, statuses: &[RankStatus], straggler: &RankStatus) -> StallReport {
    let others = || {
        let others = statuses.iter();
        others.filter(|status| status.rank != straggler.rank)
    };
    StallReport {
        member: straggler.member.clone(),
        activity: straggler.activity,
        step: straggler.position.completed,
        seconds: now.saturating_sub(straggler.since).as_secs_f64(),
        waiting: others().next().map(|first| WaitingRanks {
            ranks: others().map(|status| status.rank).collect(),
            activity: first.activity,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rank: u32, completed: u32, activity: Activity, since: u64) -> RankStatus {
        RankStatus {
            member: MemberInfo {
                worker: WorkerId(rank.into()),
                host: format!("host-{rank}"),
                rank: Some(rank),
                local_rank: None,
            },
            rank,
            position: Position {
                epoch: 1,
                completed,
            },
            activity,
            since: Now::from_millis(since),
        }
    }

    fn told(statuses: &[RankStatus]) -> (String, bool) {
        let straggler = slowest(statuses).unwrap();
        let report = report(Now::from_millis(10_000), statuses, straggler);
        (report.to_string(), is_alone(statuses, straggler))
    }

    #[test]
    fn the_rank_that_is_behind_is_named_and_not_those_that_wait_for_it() {
        let statuses = [
            status(0, 412, Activity::Backward, 3_000),
            status(1, 412, Activity::Backward, 3_100),
            status(3, 412, Activity::DataWait, 2_800),
        ];
        let line = "rank 3 on host-3 has been in data wait at step 412 for 7.2 s; ranks 0, 1 in \
                    all-reduce";
        assert_eq!(told(&statuses), (line.to_owned(), true));
    }

    #[test]
    fn a_step_behind_weighs_more_than_a_phase() {
        let statuses = [
            status(0, 5, Activity::DataWait, 2_000),
            status(1, 4, Activity::Backward, 1_000),
        ];
        let line = "rank 1 on host-1 has been in backward and all-reduce at step 4 for 9.0 s; rank \
                    0 in data wait";
        assert_eq!(told(&statuses), (line.to_owned(), true));
    }

    #[test]
    fn no_single_rank_is_to_blame_where_all_wait() {
        let both = [
            status(0, 4, Activity::Backward, 1_000),
            status(1, 4, Activity::Backward, 1_000),
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
