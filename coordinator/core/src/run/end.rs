//! How a run ends otherwise: because somebody cannot go on, and nobody can instead.

use super::loss::Successor;
use super::{Now, Phase, Run};
use crate::event::{Action, Command, FailureKind, Outcome, RunError, WorkerId};

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
            FailureKind::Collective => self.on_broken_group(now, worker, &message, out),
            FailureKind::Internal => self.on_defect(now, worker, message, out),
            _ if alone => {
                self.close_local_rank(local_rank);
                self.drop_member(now, worker, &message, Successor::None, out);
            }
            FailureKind::Data => self.fail(RunError::Data(message), out),
            FailureKind::Weights => self.fail(RunError::Weights(message), out),
            FailureKind::Environment => self.fail(RunError::Environment(message), out),
        }
    }

    /// A worker that broke in itself is replaced, as one that died.
    fn on_defect(&mut self, now: Now, worker: WorkerId, message: String, out: &mut Vec<Action>) {
        if self.initialized {
            return self.evict(now, worker, &message, out);
        }
        let message = format!("{}: {message}", self.describe(worker));
        self.defect(worker, message, out);
    }

    pub(super) fn defect(&mut self, worker: WorkerId, message: String, out: &mut Vec<Action>) {
        let local_rank = self
            .members
            .get(&worker)
            .and_then(|member| member.local_rank);
        self.fail(
            RunError::Internal {
                local_rank,
                message,
            },
            out,
        );
    }

    pub(super) fn on_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.launch_missing(now, out);
        self.evict_unresponsive(now, out);
        self.find_stall(now, out);
        self.finish_in_time(now, out);
        self.go_on(now, out);
    }

    pub(super) fn describe(&self, worker: WorkerId) -> String {
        let Some(member) = self.members.get(&worker) else {
            return worker.to_string();
        };
        match &member.assignment {
            Some(assignment) => format!("rank {} on {}", assignment.rank, member.host),
            None => format!("{worker} on {}", member.host),
        }
    }

    /// What a member was doing, for those who want to know what was lost.
    pub(super) fn activity(&self, worker: WorkerId) -> String {
        let member = self.members.get(&worker);
        let assignment = member.and_then(|member| member.assignment.as_ref());
        let step = assignment.map_or(0, |assignment| assignment.completed);
        match &self.phase {
            Phase::Training(training) if assignment.is_some() && step >= training.steps => {
                format!("in the validation of epoch {}", self.position.epoch)
            }
            Phase::Training(_) if assignment.is_some() => {
                format!("after step {step} of epoch {}", self.position.epoch)
            }
            Phase::Forming(_) if assignment.is_some() => "while it joined the group".to_owned(),
            Phase::Assembling(_) if assignment.is_some() => format!(
                "while it left the group, after step {step} of epoch {}",
                self.position.epoch
            ),
            Phase::Finishing(_) | Phase::Closed => "while the run ended".to_owned(),
            _ => "while it prepared its data".to_owned(),
        }
    }

    pub(super) fn fail(&mut self, error: RunError, out: &mut Vec<Action>) {
        self.close(Err(error), true, out);
    }

    pub(super) fn close(&mut self, outcome: Outcome, abort: bool, out: &mut Vec<Action>) {
        let reason = match &outcome {
            Ok(reason) => reason.as_str().to_owned(),
            Err(error) => error.to_string(),
        };
        for id in self.members.keys() {
            let reason = reason.clone();
            out.push(Action::Send(*id, Command::Shutdown { reason, abort }));
        }
        self.phase = Phase::Closed;
        out.push(Action::End(outcome));
    }
}
