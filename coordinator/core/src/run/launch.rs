//! The launcher's workers: which processes to start, and what their ends mean.

use super::parts::{Lost, Member};
use super::{Pause, Phase, Run};
use crate::event::{Action, EnvironmentError, Fact, Loss, LossCause, ProcessStatus, RunError};

impl Run {
    /// Starts the processes that are missing, at first and after an attempt to finish.
    pub(super) fn launch_missing(&mut self) {
        if !self.needs_workers() {
            return;
        }
        let has_member = |local_rank| self.members.with_local_rank(local_rank).is_some();
        let missing = self.local_workers.start_missing(self.now, has_member);
        let launch = |local_rank| Action::Launch { local_rank };
        self.out.extend(missing.into_iter().map(launch));
    }

    /// Starts a worker in the place of a lost one, if its local rank has not failed too often.
    pub(super) fn restart(&mut self, local_rank: u32, lost: Option<&Member>) {
        let lost = lost.map(|member| Lost {
            pid: member.pid,
            from_before: member.from_before,
        });
        if self.needs_workers() && self.local_workers.restart(local_rank, lost) {
            self.out.push(Action::Launch { local_rank });
        }
    }

    pub(super) fn needs_workers(&self) -> bool {
        let ending = matches!(self.phase, Phase::Finishing(_) | Phase::Closed);
        !ending && !matches!(self.pause, Some(Pause::Stop(_)))
    }

    /// Local ranks without a member that may yet get one.
    pub(super) fn vacant_local_ranks(&self) -> usize {
        let has_member = |local_rank| self.members.with_local_rank(local_rank).is_some();
        self.local_workers.vacant(has_member)
    }

    /// Those that train go on without it.
    pub(super) fn on_launch_failed(&mut self, local_rank: u32, error: String) {
        if !self.initialized {
            let error = EnvironmentError::LaunchFailed(error);
            return self.fail(RunError::Environment(error));
        }
        self.local_workers.launch_failed(local_rank);
        self.failures.lose(Loss::LaunchFailed {
            local_rank,
            error: error.clone(),
        });
        self.out
            .push(Action::Notify(Fact::LaunchFailed { local_rank, error }));
        self.go_on();
    }

    pub(super) fn on_exited(&mut self, local_rank: u32, pid: u32, status: ProcessStatus) {
        let current = self.local_workers.exited(local_rank, pid);
        let holder = self.members.with_local_rank(local_rank);
        let same = |worker: &_| self.members.get(*worker).is_some_and(|m| m.pid == pid);
        if let Some(worker) = holder.filter(same) {
            return self.on_lost(worker, LossCause::ProcessExited(status));
        }
        let displaced = self.local_workers.was_displaced(local_rank, pid);
        let joined = self.local_workers.explains(local_rank, pid);
        if joined {
            self.failures.lose(Loss::Exited { local_rank, status });
            self.notify(Fact::Exited { local_rank, status });
        }
        let (Some(closed), None) = (current, holder) else {
            return;
        };
        if !joined && !displaced {
            self.failures.lose(Loss::ExitedEarly { local_rank, status });
        }
        let signalled = matches!(status, ProcessStatus::Signal(_));
        // One that exits by itself before it joins, and before anything is trained, would do so
        // again.
        let again = joined || displaced || signalled || self.initialized;
        if !closed && again {
            self.restart(local_rank, None);
        }
        let coming = self.local_workers.is_coming(local_rank);
        if !closed && !joined && !displaced && !self.initialized && self.needs_workers() && !coming
        {
            return self.fail(RunError::ExitedEarly { local_rank, status });
        }
        self.go_on();
    }
}
