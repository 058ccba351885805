//! Members that go: lost, evicted, or asked to end.

use super::parts::{Member, REJOIN_GRACE, Stage};
use super::{Pause, Phase, Run};
use crate::event::{
    Action, Command, Fact, Location, Loss, LossCause, MemberInfo, OutageCause, Position, RunError,
    SaveState, ShutdownReason, WorkerId,
};

/// Whether another worker is to come in the place of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    None,
    AtOnce,
    UnlessItReturns,
}

impl Run {
    pub(super) fn on_lost(&mut self, worker: WorkerId, cause: LossCause) {
        self.drop_member(worker, cause, Successor::UnlessItReturns);
    }

    /// The member is lost, whatever its process does. The launcher may replace one of its own;
    /// others may start one in place of another.
    pub(super) fn drop_member(&mut self, worker: WorkerId, cause: LossCause, successor: Successor) {
        let Some(member) = self.members.get(worker) else {
            return;
        };
        let assigned = member.is_assigned();
        // One that is not in the group takes nothing from it.
        if assigned {
            self.begin_outage(OutageCause::WorkerDied);
        }
        let location = self.location(worker);
        let Some(member) = self.members.remove(worker) else {
            return;
        };
        self.report_loss(&member, worker, location, cause);
        self.checkpoints.forget_worker(worker);
        self.best_weights.forget_worker(worker);
        let replace = successor != Successor::None && !member.draining;
        if let (true, Some(local_rank)) = (replace, member.local_rank) {
            let may_return = successor == Successor::UnlessItReturns;
            if !(may_return && self.waits_for_return(local_rank, &member)) {
                self.restart(local_rank, Some(&member));
            }
        }
        let absent = usize::from(replace && member.local_rank.is_none());
        if assigned {
            self.failures.forgive_groups();
        }
        match &mut self.phase {
            Phase::Forming(_) | Phase::Training(_) if assigned => {
                self.abort_generation(absent);
            }
            Phase::Assembling(assembling) => {
                assembling.absent += absent;
                self.release_draining();
                self.go_on();
            }
            Phase::Finishing(_) => self.lost_while_finishing(worker),
            _ => self.go_on(),
        }
    }

    fn report_loss(
        &mut self,
        member: &Member,
        worker: WorkerId,
        location: Location,
        cause: LossCause,
    ) {
        let info = member.info(worker);
        if member.draining {
            self.notify(Fact::Left { member: info });
        } else if !self.has_finished(worker) {
            if let (LossCause::SessionBroke, Some(local_rank)) = (&cause, member.local_rank) {
                self.local_workers.session_broke(local_rank, member.pid);
            }
            self.failures.lose(Loss::Member {
                member: info.clone(),
                location,
                cause: cause.clone(),
            });
            self.notify(Fact::Lost {
                member: info,
                location,
                cause,
            });
        }
    }

    /// Waits for a lost worker whose process is alive, if no other member retains a state: its
    /// session may have broken without an error of its own, as when the coordinator was stopped for
    /// a while. Returns whether it waits.
    fn waits_for_return(&mut self, local_rank: u32, lost: &Member) -> bool {
        let holds = |member: &Member| member.is_assigned() || member.retained.is_some();
        let alone = !self.members.values().any(holds);
        let waits = holds(lost)
            && alone
            && self.needs_workers()
            && self.local_workers.pid(local_rank) == Some(lost.pid);
        if waits {
            self.local_workers
                .await_rejoin(local_rank, self.now + REJOIN_GRACE);
        }
        waits
    }

    /// Loses a member on purpose: its process is ended and replaced.
    pub(super) fn evict(&mut self, worker: WorkerId, cause: LossCause) {
        if self.members.get(worker).is_some_and(Member::is_assigned) {
            self.begin_outage(OutageCause::WorkerEvicted);
        }
        self.dismiss(worker, ShutdownReason::Removed(cause.clone()), true);
        self.drop_member(worker, cause, Successor::AtOnce);
    }

    /// A group that broke although all of its members are alive.
    pub(super) fn on_broken_group(&mut self, worker: WorkerId, cause: LossCause) {
        let member = self
            .members
            .get(worker)
            .filter(|member| member.is_assigned());
        let (Some(member), Phase::Forming(_) | Phase::Training(_)) = (member, &self.phase) else {
            return;
        };
        let loss = Loss::Member {
            member: member.info(worker),
            location: self.location(worker),
            cause,
        };
        let last = Box::new(loss.clone());
        if let Some(groups) = self.failures.break_group(loss) {
            return self.fail(RunError::GroupsFailing { groups, last });
        }
        self.begin_outage(OutageCause::GroupBroke);
        self.abort_generation(0);
    }

    pub(super) fn on_draining(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(worker) else {
            return;
        };
        member.draining = true;
        let assigned = member.is_assigned();
        // One that claims a local rank of the former coordinator's launcher, and goes before it
        // has shown to be a worker, does not keep others from it.
        if !(member.from_before && member.stage == Stage::Joined) {
            self.local_workers.close(member.local_rank);
        }
        match self.phase {
            Phase::Training(_) if assigned => self.pause(Pause::Regroup),
            Phase::Forming(_) if assigned => self.abort_generation(0),
            _ => self.release_draining(),
        }
    }

    /// Releases the members that were asked to end and have left their group, once no state is lost
    /// with them.
    pub(super) fn release_draining(&mut self) {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Closed) {
            return;
        }
        let free = |(id, member): (WorkerId, &Member)| {
            (member.draining && !member.is_assigned()).then_some(id)
        };
        let draining: Vec<WorkerId> = self.members.iter().filter_map(free).collect();
        for worker in draining {
            if !self.is_needed(worker) && self.is_member(worker) {
                let cause = LossCause::DrainRequested;
                self.dismiss(worker, ShutdownReason::Removed(cause.clone()), false);
                // Others may go with it, or the whole run.
                return self.drop_member(worker, cause, Successor::None);
            }
        }
    }

    /// Whether a worker has something that no other member has; it is asked for that.
    fn is_needed(&mut self, worker: WorkerId) -> bool {
        if self.gives_the_best(worker) {
            return true;
        }
        let retained = |member: &Member| member.retained.and_then(|at| self.restart_of(at));
        let Some(mine) = self.members.get(worker).and_then(retained) else {
            return false;
        };
        let mut others = self.members.values().filter(|member| !member.draining);
        let spared = self.is_durable(mine)
            || others.any(|other| other.is_assigned() || retained(other) >= Some(mine));
        if spared || self.best_is_missing() {
            return false;
        }
        if self.best_is_stored() && !self.checkpoints.is_awaited() {
            self.checkpoints.ask(worker, mine);
            let order = Command::SaveState(SaveState::Checkpoint);
            self.out.push(Action::Send(worker, order));
        }
        true
    }

    pub(super) fn info(&self, worker: WorkerId) -> Option<MemberInfo> {
        Some(self.members.get(worker)?.info(worker))
    }

    /// Where in the run a member is.
    fn location(&self, worker: WorkerId) -> Location {
        let member = self.members.get(worker);
        let assignment = member.and_then(|member| member.assignment.as_ref());
        let epoch = self.position.epoch;
        let at = |completed| Position { epoch, completed };
        match (&self.phase, assignment) {
            (Phase::Training(training), Some(assignment))
                if assignment.completed >= training.steps =>
            {
                Location::Validation { epoch }
            }
            (Phase::Training(_), Some(assignment)) => Location::Training(at(assignment.completed)),
            (Phase::Forming(_), Some(_)) => Location::Rendezvous,
            (Phase::Assembling(_), Some(assignment)) => {
                Location::Aborting(at(assignment.completed))
            }
            (Phase::Finishing(_) | Phase::Closed, _) => Location::Ending,
            _ => Location::Preparing,
        }
    }
}
