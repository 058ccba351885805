//! Members that go: lost, broken, put down, or asked to end.

use super::{Now, Pause, Phase, Run, Stage};
use crate::event::{
    Action, Command, Fact, Loss, LossCause, OutageCause, RunError, SaveState, ShutdownReason,
    WorkerId,
};

/// Groups that break in a row, with nobody lost and no step made, before the run gives up.
const MAX_GROUP_FAILURES: u32 = 5;

/// Whether another worker is to come in the place of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    None,
    AtOnce,
    UnlessItReturns,
}

impl Run {
    pub(super) fn on_lost(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: LossCause,
        out: &mut Vec<Action>,
    ) {
        self.drop_member(now, worker, cause, Successor::UnlessItReturns, out);
    }

    /// The member is gone, whatever its process does. If it is to be replaced, its launcher
    /// does so, or somebody may.
    pub(super) fn drop_member(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: LossCause,
        successor: Successor,
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get(&worker) else {
            return;
        };
        // Whoever is not in the group takes nothing from it.
        if member.assignment.is_some() {
            self.note_outage(now, OutageCause::WorkerDied);
        }
        let location = self.location(worker);
        let Some(member) = self.members.remove(&worker) else {
            return;
        };
        let info = member.info(worker);
        if member.draining {
            out.push(Action::Notify(Fact::Left { member: info }));
        } else if !self.has_finished(worker) {
            self.last_loss = Some(Loss::Member {
                member: info.clone(),
                location,
                cause: cause.clone(),
            });
            out.push(Action::Notify(Fact::Lost {
                member: info,
                location,
                cause,
            }));
        }
        if self.awaits_checkpoint(worker) {
            self.awaited_checkpoint = None;
        }
        if self.awaited_best.is_some_and(|(_, id)| id == worker) {
            self.awaited_best = None;
        }
        let replace = successor != Successor::None && !member.draining;
        if let (true, Some(local_rank)) = (replace, member.local_rank)
            && !(successor == Successor::UnlessItReturns
                && self.waits_for(now, local_rank, &member))
        {
            self.replace(local_rank, Some(&member), out);
        }
        let absent = usize::from(replace && member.local_rank.is_none());
        let seated = member.assignment.is_some();
        if seated {
            self.consecutive_group_failures = 0;
        }
        match &mut self.phase {
            Phase::Forming(_) | Phase::Training(_) if seated => {
                self.abort_generation(now, absent, out)
            }
            Phase::Assembling(assembling) => {
                assembling.absent += absent;
                self.release_draining(now, out);
                self.go_on(now, out);
            }
            Phase::Finishing(_) => self.lost_while_finishing(now, worker, out),
            _ => self.go_on(now, out),
        }
    }

    /// Loses a member on purpose: its process is told to end, and replaced.
    pub(super) fn evict(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: LossCause,
        out: &mut Vec<Action>,
    ) {
        let (reason, abort) = (ShutdownReason::Removed(cause.clone()), true);
        if self
            .members
            .get(&worker)
            .is_some_and(|m| m.assignment.is_some())
        {
            self.note_outage(now, OutageCause::WorkerEvicted);
        }
        out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
        self.drop_member(now, worker, cause, Successor::AtOnce, out);
    }

    /// A group that broke although all of its members live.
    pub(super) fn on_broken_group(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: LossCause,
        out: &mut Vec<Action>,
    ) {
        let seated = self
            .members
            .get(&worker)
            .is_some_and(|m| m.assignment.is_some());
        if !seated || !matches!(self.phase, Phase::Forming(_) | Phase::Training(_)) {
            return;
        }
        let Some(member) = self.info(worker) else {
            return;
        };
        let loss = Loss::Member {
            member,
            location: self.location(worker),
            cause,
        };
        self.last_loss = Some(loss.clone());
        self.consecutive_group_failures += 1;
        if self.consecutive_group_failures > MAX_GROUP_FAILURES {
            let error = RunError::GroupsFailing {
                groups: self.consecutive_group_failures,
                last: Box::new(loss),
            };
            return self.fail(error, out);
        }
        self.note_outage(now, OutageCause::GroupBroke);
        self.abort_generation(now, 0, out);
    }

    pub(super) fn on_draining(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.draining = true;
        let (local_rank, seated) = (member.local_rank, member.assignment.is_some());
        // Whoever claims a place of the former coordinator's launcher, and goes before it has
        // shown to be a worker, does not keep others from it.
        if !(member.from_before && member.stage == Stage::Joined) {
            self.close_local_rank(local_rank);
        }
        match self.phase {
            Phase::Training(_) if seated => self.pause(now, Pause::Regroup, out),
            Phase::Forming(_) if seated => self.abort_generation(now, 0, out),
            _ => self.release_draining(now, out),
        }
    }

    /// Lets those go who were asked to end and have left their group, once nothing is lost with
    /// them.
    pub(super) fn release_draining(&mut self, now: Now, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Closed) {
            return;
        }
        let free = |(id, member): (&WorkerId, &super::Member)| {
            (member.draining && member.assignment.is_none()).then_some(*id)
        };
        let draining: Vec<WorkerId> = self.members.iter().filter_map(free).collect();
        for worker in draining {
            if !self.is_needed(worker, out) && self.members.contains_key(&worker) {
                let cause = LossCause::DrainRequested;
                let (reason, abort) = (ShutdownReason::Removed(cause.clone()), false);
                out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
                // Others may go with it, or the whole run.
                return self.drop_member(now, worker, cause, Successor::None, out);
            }
        }
    }

    /// Whether a worker has something that nobody else has; it is asked for that.
    fn is_needed(&mut self, worker: WorkerId, out: &mut Vec<Action>) -> bool {
        if self.gives_the_best(worker, out) {
            return true;
        }
        let retained = |member: &super::Member| member.retained.and_then(|at| self.restart_of(at));
        let Some(mine) = self.members.get(&worker).and_then(retained) else {
            return false;
        };
        let others = self.members.values().filter(|member| !member.draining);
        let spared = self.is_durable(mine)
            || others
                .into_iter()
                .any(|other| other.assignment.is_some() || retained(other) >= Some(mine));
        if spared || self.best_is_missing() {
            return false;
        }
        if self.best_is_safe() && self.awaited_checkpoint.is_none() {
            self.awaited_checkpoint = Some((worker, mine));
            out.push(Action::Send(
                worker,
                Command::SaveState(SaveState::Checkpoint),
            ));
        }
        true
    }
}
