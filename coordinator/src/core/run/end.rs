//! How a run ends: by its rule, by an interrupt, or because somebody failed.

use super::{Now, Phase, Run};
use crate::core::event::{
    Action, Command, FailureKind, Notice, Outcome, RunError, StopReason, WorkerId,
};

/// How long the last pictures and uploads may take before the run ends without them.
const FINISH_TIMEOUT: Now = Now::from_secs(60);
/// A failed collective usually means a dead peer, whose broken session tells more: wait for it.
const BLAME_WAIT: Now = Now::from_secs(2);
/// Tiles of the final picture.
const SHOWN: usize = 16;

impl Run {
    /// Ends training at the next step boundary that all ranks will reach.
    pub(super) fn stop_early(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Training(_) => {
                if self.interrupted.is_none() {
                    self.interrupted = Some(reason);
                    out.push(Action::Notify(Notice::Stopping(reason)));
                }
                self.stop_if_parked(now, out);
            }
            Phase::Finishing { .. } | Phase::Closed => {}
            Phase::Gathering | Phase::Preparing | Phase::Forming => {
                out.push(Action::Notify(Notice::Stopping(reason)));
                self.close(Ok(reason), true, out);
            }
        }
    }

    /// All ranks wait for a grant that will not come. When the epoch's last step is granted,
    /// they do not park, and the barrier at its end takes the stop into account.
    pub(super) fn stop_if_parked(&mut self, now: Now, out: &mut Vec<Action>) {
        let (Phase::Training(training), Some(reason)) = (&self.phase, self.interrupted) else {
            return;
        };
        let parked = training.granted < training.steps
            && self.all(|member| member.completed >= training.granted);
        if parked {
            self.finish(now, reason, out);
        }
    }

    pub(super) fn finish(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        let spacing = (self.split.validation.len() / SHOWN).max(1);
        let show: Vec<u32> = self
            .split
            .validation
            .iter()
            .step_by(spacing)
            .take(SHOWN)
            .copied()
            .collect();
        let show = if self.stopping.best().is_some() {
            show
        } else {
            Vec::new()
        };
        for id in self.members.keys() {
            let finish = Command::Finish {
                generation: self.generation,
                show: show.clone(),
            };
            out.push(Action::Send(*id, finish));
        }
        self.phase = Phase::Finishing {
            reason,
            until: now + FINISH_TIMEOUT,
        };
    }

    pub(super) fn close_if_finished(&mut self, out: &mut Vec<Action>) {
        if let Phase::Finishing { reason, .. } = self.phase
            && self.awaited_state.is_none()
            && self.all(|member| member.finished)
        {
            self.close(Ok(reason), false, out);
        }
    }

    pub(super) fn on_failed(
        &mut self,
        now: Now,
        worker: WorkerId,
        kind: FailureKind,
        message: String,
        out: &mut Vec<Action>,
    ) {
        if !self.members.contains_key(&worker) {
            return;
        }
        match kind {
            FailureKind::Data => self.fail(RunError::Data(message), out),
            FailureKind::Weights => self.fail(RunError::Weights(message), out),
            FailureKind::Environment => self.fail(RunError::Environment(message), out),
            FailureKind::Internal => {
                let message = format!("{}: {message}", self.describe(worker));
                let slot = self.members.get(&worker).and_then(|member| member.slot);
                self.fail(RunError::Internal { slot, message }, out);
            }
            FailureKind::Collective => {
                self.blame.get_or_insert((now, worker, message));
            }
        }
    }

    pub(super) fn on_lost(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get(&worker) else {
            return;
        };
        let finished = matches!(self.phase, Phase::Finishing { .. }) && member.finished;
        let itself = self
            .blame
            .as_ref()
            .is_some_and(|(_, blamed, _)| *blamed == worker);
        if finished || (itself && self.members.len() > 1) {
            return;
        }
        let cause = "its session broke".to_owned();
        self.fail(self.worker_lost(worker, cause), out);
    }

    pub(super) fn worker_lost(&self, worker: WorkerId, cause: String) -> RunError {
        let member = self.members.get(&worker);
        let step = member.map_or(0, |member| member.completed);
        let when = match &self.phase {
            Phase::Training(training) => format!("after step {step} of epoch {}", training.epoch),
            Phase::Gathering | Phase::Preparing => "while it prepared its data".to_owned(),
            Phase::Forming => "while it joined the group".to_owned(),
            Phase::Finishing { .. } | Phase::Closed => format!("after its last step, {step}"),
        };
        RunError::WorkerLost {
            who: self.describe(worker),
            slot: member.and_then(|member| member.slot),
            when,
            cause,
        }
    }

    pub(super) fn on_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some((since, worker, message)) = &self.blame
            && now.saturating_sub(*since) >= BLAME_WAIT
        {
            let error = self.worker_lost(*worker, message.clone());
            return self.fail(error, out);
        }
        if let Phase::Finishing { reason, until } = self.phase
            && now >= until
        {
            let outcome = match self.awaited_state {
                // Without its last picture a run is whole, without its best weights it is not.
                Some(epoch) => Err(RunError::Internal {
                    slot: None,
                    message: format!("the best weights, of epoch {epoch}, did not arrive"),
                }),
                None => Ok(reason),
            };
            self.close(outcome, true, out);
        }
    }

    pub(super) fn describe(&self, worker: WorkerId) -> String {
        match (self.members.get(&worker), self.generation) {
            (Some(member), 1..) => format!("rank {} on {}", member.rank, member.host),
            (Some(member), 0) => format!("{worker} on {}", member.host),
            (None, _) => worker.to_string(),
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
            out.push(Action::Send(
                *id,
                Command::Shutdown {
                    reason: reason.clone(),
                    abort,
                },
            ));
        }
        self.phase = Phase::Closed;
        out.push(Action::End(outcome));
    }
}
