//! Workers that report a failure, and the end of a run by one.

use super::departure::Successor;
use super::{Now, Phase, Run};
use crate::event::{
    Action, Command, DataError, EnvironmentError, FailureKind, LossCause, Outcome, RunError,
    ShutdownReason, WorkerId,
};

impl Run {
    pub(super) fn on_failed(
        &mut self,
        now: Now,
        worker: WorkerId,
        kind: FailureKind,
        message: String,
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get(worker) else {
            return;
        };
        let local_rank = member.local_rank;
        let reported = |message| LossCause::Reported { kind, message };
        match kind {
            FailureKind::Collective => {
                self.on_broken_group(now, worker, reported(message), out);
            }
            // A worker that broke in itself is replaced, as one that died.
            FailureKind::Internal if self.initialized => {
                self.evict(now, worker, reported(message), out);
            }
            FailureKind::Internal => {
                if let Some(member) = self.info(worker) {
                    self.fail(RunError::WorkerDefect { member, message }, out);
                }
            }
            // What one worker cannot do another cannot do either, unless others have done it.
            _ if self.initialized => {
                self.local_workers.close(local_rank);
                self.drop_member(now, worker, reported(message), Successor::None, out);
            }
            FailureKind::Data => self.fail(RunError::Data(DataError::Reported(message)), out),
            FailureKind::Weights => self.fail(RunError::Weights(message), out),
            FailureKind::Environment => {
                let error = EnvironmentError::Reported(message);
                self.fail(RunError::Environment(error), out);
            }
        }
    }

    pub(super) fn fail(&mut self, error: RunError, out: &mut Vec<Action>) {
        self.close(Err(error), true, out);
    }

    pub(super) fn close(&mut self, outcome: Outcome, abort: bool, out: &mut Vec<Action>) {
        let reason = match &outcome {
            Ok(reason) => ShutdownReason::Ended(*reason),
            Err(error) => ShutdownReason::Failed(error.clone()),
        };
        out.extend(self.members.iter().map(|(id, _)| {
            let reason = reason.clone();
            Action::Send(id, Command::Shutdown { reason, abort })
        }));
        self.phase = Phase::Closed;
        out.push(Action::End(outcome));
    }
}
