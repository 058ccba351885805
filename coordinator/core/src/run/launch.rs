//! The processes of the local launcher: one for each slot, started again when it dies, though
//! not for ever.

use super::{Member, Now, Pause, Phase, Run};
use crate::event::{
    Action, EnvironmentError, Fact, Loss, LossCause, ProcessStatus, RefusalReason, RunError,
    WorkerId,
};

/// How long workers may take to come back before others are started in their place: those of the
/// former coordinator on resuming, and the last one that held a state.
const COME_BACK: Now = Now::from_secs(3);

/// A slot of the launcher.
#[derive(Debug, Default)]
pub(super) struct LocalWorker {
    /// The process that runs there, as long as it does.
    pid: Option<u32>,
    /// A start was asked for, and its process is not known yet.
    asked: bool,
    /// Since its last step.
    restarts: u32,
    /// Nobody is started here any more.
    closed: bool,
    /// Its process lives, and may open another session until then.
    back_by: Option<Now>,
}

impl LocalWorker {
    fn is_idle(&self) -> bool {
        !self.closed && !self.asked && self.pid.is_none()
    }
}

impl Run {
    /// Starts what is missing of the launcher's workers, at first and after an attempt to finish.
    pub(super) fn launch_missing(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.inherited && now < COME_BACK || !self.needs_workers() {
            return;
        }
        for local_rank in 0..self.recipe.local_ranks {
            match self.local_ranks.get(&local_rank) {
                _ if self.member_in(local_rank).is_some() => {}
                None => self.launch(local_rank, out),
                Some(state) if state.back_by.is_some_and(|by| by <= now) => {
                    self.give_up_waiting(local_rank, out);
                }
                Some(state) if state.is_idle() => self.replace(local_rank, None, out),
                Some(_) => {}
            }
        }
    }

    /// Starts a worker in the place of a lost one, if its slot has not failed too often.
    pub(super) fn replace(
        &mut self,
        local_rank: u32,
        lost: Option<&Member>,
        out: &mut Vec<Action>,
    ) {
        if !self.needs_workers() {
            return;
        }
        let max_restarts = self.recipe.max_restarts;
        let state = self.local_ranks.entry(local_rank).or_default();
        if state.asked || state.pid.is_some() && state.pid != lost.map(|member| member.pid) {
            // Somebody is there for it already, and only came too late.
            return;
        }
        state.pid = None;
        // Those of a former launcher do not count: this one may yet start its own.
        let counts = lost.is_none_or(|member| !member.from_before);
        if state.closed || counts && state.restarts >= max_restarts {
            state.closed = true;
            return;
        }
        state.restarts += u32::from(counts);
        self.launch(local_rank, out);
    }

    /// Waits for a lost worker whose process lives, if nobody else holds a state: its session may
    /// have broken for no fault of its own, as when the coordinator stood still. Says whether.
    pub(super) fn waits_for(&mut self, now: Now, local_rank: u32, lost: &Member) -> bool {
        let holds = |member: &Member| member.assignment.is_some() || member.retained.is_some();
        let alone = !self.members.values().any(holds);
        let waits = holds(lost)
            && alone
            && self.needs_workers()
            && self.process_in(local_rank) == Some(lost.pid);
        if waits && let Some(state) = self.local_ranks.get_mut(&local_rank) {
            state.back_by = Some(now + COME_BACK);
        }
        waits
    }

    fn give_up_waiting(&mut self, local_rank: u32, out: &mut Vec<Action>) {
        if let Some(state) = self.local_ranks.get_mut(&local_rank) {
            (state.pid, state.back_by) = (None, None);
        }
        self.replace(local_rank, None, out);
    }

    fn launch(&mut self, local_rank: u32, out: &mut Vec<Action>) {
        self.local_ranks.entry(local_rank).or_default().asked = true;
        out.push(Action::Launch { local_rank });
    }

    fn needs_workers(&self) -> bool {
        let ending = matches!(self.phase, Phase::Finishing(_) | Phase::Closed);
        !ending && !matches!(self.pause, Some(Pause::Stop(_)))
    }

    /// Nobody is started in this slot any more: its worker was asked to end, or cannot work.
    pub(super) fn close_local_rank(&mut self, local_rank: Option<u32>) {
        if let Some(local_rank) = local_rank {
            self.local_ranks.entry(local_rank).or_default().closed = true;
        }
    }

    /// A worker that makes steps has earned new chances.
    pub(super) fn works(&mut self, local_rank: Option<u32>) {
        if let Some(state) = local_rank.and_then(|local_rank| self.local_ranks.get_mut(&local_rank))
        {
            state.restarts = 0;
        }
    }

    pub(super) fn on_started(&mut self, local_rank: u32, pid: u32) {
        let state = self.local_ranks.entry(local_rank).or_default();
        state.asked = false;
        state.pid = Some(pid);
        state.back_by = None;
    }

    /// Those who train go on without it.
    pub(super) fn on_launch_failed(
        &mut self,
        now: Now,
        local_rank: u32,
        error: String,
        out: &mut Vec<Action>,
    ) {
        if !self.initialized {
            let error = EnvironmentError::LaunchFailed(error);
            return self.fail(RunError::Environment(error), out);
        }
        let state = self.local_ranks.entry(local_rank).or_default();
        state.asked = false;
        state.closed = true;
        self.last_loss = Some(Loss::LaunchFailed {
            local_rank,
            error: error.clone(),
        });
        out.push(Action::Notify(Fact::LaunchFailed { local_rank, error }));
        self.go_on(now, out);
    }

    pub(super) fn on_exited(
        &mut self,
        now: Now,
        local_rank: u32,
        pid: u32,
        status: ProcessStatus,
        out: &mut Vec<Action>,
    ) {
        let state = self.local_ranks.get_mut(&local_rank);
        let current = state.filter(|state| state.pid == Some(pid)).map(|state| {
            (state.pid, state.back_by) = (None, None);
            state.closed
        });
        let holder = self.member_in(local_rank);
        let same = |id: &WorkerId| self.members.get(id).is_some_and(|m| m.pid == pid);
        if let Some(worker) = holder.filter(same) {
            return self.on_lost(now, worker, LossCause::ProcessExited(status), out);
        }
        let (Some(closed), None) = (current, holder) else {
            return;
        };
        self.last_loss = Some(Loss::ExitedEarly { local_rank, status });
        let signalled = matches!(status, ProcessStatus::Signal(_));
        // One that gives up by itself before anybody has trained would do so again.
        if !closed && (signalled || self.initialized) {
            self.replace(local_rank, None, out);
        }
        if !closed && !self.initialized && self.needs_workers() && !self.is_coming(local_rank) {
            return self.fail(RunError::ExitedEarly { local_rank, status }, out);
        }
        self.go_on(now, out);
    }

    /// The process that the launcher has in the slot.
    pub(super) fn process_in(&self, local_rank: u32) -> Option<u32> {
        self.local_ranks
            .get(&local_rank)
            .and_then(|state| state.pid)
    }

    fn member_in(&self, local_rank: u32) -> Option<WorkerId> {
        let mut members = self.members.iter();
        let holder = members.find(|(_, member)| member.local_rank == Some(local_rank));
        holder.map(|(id, _)| *id)
    }

    /// A process runs in the slot, or is about to.
    fn is_coming(&self, local_rank: u32) -> bool {
        let state = self.local_ranks.get(&local_rank);
        state.is_some_and(|state| !state.closed && (state.asked || state.pid.is_some()))
    }

    /// Slots in which there is no member, but a process is on its way, or about to be started.
    pub(super) fn open_local_ranks(&self) -> usize {
        (0..self.recipe.local_ranks)
            .filter(|local_rank| self.member_in(*local_rank).is_none())
            .filter(|local_rank| {
                self.local_ranks
                    .get(local_rank)
                    .is_none_or(|state| !state.closed)
            })
            .count()
    }

    /// Whether a process may have the local rank that it claims. The processes of a former
    /// coordinator's launcher are not known.
    pub(super) fn claim(&self, local_rank: u32, pid: u32) -> Result<(), RefusalReason> {
        if let Some(holder) = self.member_in(local_rank) {
            return Err(RefusalReason::LocalRankTaken { local_rank, holder });
        }
        if !self.inherited && self.process_in(local_rank) != Some(pid) {
            return Err(RefusalReason::NotLaunched { local_rank, pid });
        }
        Ok(())
    }
}
