//! How a run ends otherwise: because somebody cannot go on, and nobody can instead.

use super::loss::Successor;
use super::{Now, Phase, Run};
use crate::event::{
    Action, Command, DataError, EnvironmentError, FailureKind, Location, LossCause, MemberInfo,
    Outcome, Position, RunError, ShutdownReason, WorkerId,
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
        let Some(member) = self.members.get(&worker) else {
            return;
        };
        // What one worker cannot do another cannot do either, unless others have done it already.
        let alone =
            self.initialized && !matches!(kind, FailureKind::Collective | FailureKind::Internal);
        let local_rank = member.local_rank;
        match kind {
            FailureKind::Collective => {
                self.on_broken_group(now, worker, LossCause::Reported { kind, message }, out);
            }
            FailureKind::Internal => self.on_defect(now, worker, message, out),
            _ if alone => {
                self.close_local_rank(local_rank);
                let cause = LossCause::Reported { kind, message };
                self.drop_member(now, worker, cause, Successor::None, out);
            }
            FailureKind::Data => self.fail(RunError::Data(DataError::Reported(message)), out),
            FailureKind::Weights => self.fail(RunError::Weights(message), out),
            FailureKind::Environment => {
                let error = EnvironmentError::Reported(message);
                self.fail(RunError::Environment(error), out);
            }
        }
    }

    /// A worker that broke in itself is replaced, as one that died.
    fn on_defect(&mut self, now: Now, worker: WorkerId, message: String, out: &mut Vec<Action>) {
        if self.initialized {
            let kind = FailureKind::Internal;
            return self.evict(now, worker, LossCause::Reported { kind, message }, out);
        }
        if let Some(member) = self.info(worker) {
            self.fail(RunError::WorkerDefect { member, message }, out);
        }
    }

    pub(super) fn on_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.launch_missing(now, out);
        self.evict_unresponsive(now, out);
        self.find_stall(now, out);
        self.finish_in_time(now, out);
        self.go_on(now, out);
    }

    pub(super) fn info(&self, worker: WorkerId) -> Option<MemberInfo> {
        Some(self.members.get(&worker)?.info(worker))
    }

    /// Where in the run a member is.
    pub(super) fn location(&self, worker: WorkerId) -> Location {
        let member = self.members.get(&worker);
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

    pub(super) fn fail(&mut self, error: RunError, out: &mut Vec<Action>) {
        self.close(Err(error), true, out);
    }

    pub(super) fn close(&mut self, outcome: Outcome, abort: bool, out: &mut Vec<Action>) {
        let reason = match &outcome {
            Ok(reason) => ShutdownReason::Ended(*reason),
            Err(error) => ShutdownReason::Failed(error.clone()),
        };
        for id in self.members.keys() {
            let reason = reason.clone();
            out.push(Action::Send(*id, Command::Shutdown { reason, abort }));
        }
        self.phase = Phase::Closed;
        out.push(Action::End(outcome));
    }
}
