//! Workers that report a failure, and the end of a run by one.

use super::departure::Successor;
use super::{Phase, Run};
use crate::event::{
    Action, Command, DataError, EnvironmentError, FailureKind, LossCause, Outcome, RunError,
    ShutdownReason, WorkerId,
};

impl Run {
    pub(super) fn on_failed(&mut self, worker: WorkerId, kind: FailureKind, message: String) {
        let Some(member) = self.members.get(worker) else {
            return;
        };
        let local_rank = member.local_rank;
        let others_can = self.stepped || self.initialized && !member.is_assigned();
        let reported = |message| LossCause::Reported { kind, message };
        match kind {
            FailureKind::Collective => {
                self.on_broken_group(worker, reported(message));
            }
            // A worker that broke in itself is replaced, as one that died.
            FailureKind::Internal if self.initialized => {
                self.evict(worker, reported(message));
            }
            FailureKind::Internal => {
                if let Some(member) = self.info(worker) {
                    self.fail(RunError::WorkerDefect { member, message });
                }
            }
            // A GPU that others have used by now may come back.
            FailureKind::Device if self.initialized => {
                if let Some(local_rank) = local_rank {
                    self.local_workers.restart_later(local_rank, self.now);
                }
                self.drop_member(worker, reported(message), Successor::None);
            }
            // What one worker cannot do another cannot do either, unless others have done it.
            _ if others_can => {
                self.local_workers.close(local_rank);
                self.drop_member(worker, reported(message), Successor::None);
            }
            FailureKind::Data => self.fail(RunError::Data(DataError::Reported(message))),
            FailureKind::Weights => self.fail(RunError::Weights(message)),
            FailureKind::Environment | FailureKind::Device => {
                let error = EnvironmentError::Reported(message);
                self.fail(RunError::Environment(error));
            }
        }
    }

    pub(super) fn fail(&mut self, error: RunError) {
        self.close(Err(error), true);
    }

    pub(super) fn close(&mut self, outcome: Outcome, abort: bool) {
        let reason = match &outcome {
            Ok(reason) => ShutdownReason::Ended(*reason),
            Err(error) => ShutdownReason::Failed(error.clone()),
        };
        self.out.extend(self.members.iter().map(|(id, _)| {
            let reason = reason.clone();
            Action::Send(id, Command::Shutdown { reason, abort })
        }));
        self.phase = Phase::Closed;
        self.out.push(Action::End(outcome));
    }
}
