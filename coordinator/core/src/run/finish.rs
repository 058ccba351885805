//! The orderly end: what has to be durable is made so, predictions are asked for, all workers go.

use std::cmp::Reverse;

use super::Run;
use super::parts::{Member, Stage};
use super::phase::{CheckpointLookup, Finishing, Pause, Phase};
use crate::event::{Action, Command, Fact, Position, RunError, SaveState, StopReason, WorkerId};

/// Images of the predictions grid.
const SHOWN: usize = 16;

impl Run {
    /// Ends training at the next step boundary that all ranks will reach.
    pub(super) fn stop_early(&mut self, reason: StopReason) {
        if matches!(self.pause, Some(Pause::Stop(_))) {
            return;
        }
        match self.phase {
            Phase::Finishing(_) | Phase::Closed => return,
            _ => self.notify(Fact::Stopping(reason)),
        }
        self.pause(Pause::Stop(reason));
        match self.phase {
            // Of a run that has trained before, workers may have come back with something.
            Phase::Gathering | Phase::Preparing if self.initialized => {
                self.finish(reason);
            }
            Phase::Gathering | Phase::Preparing => self.close(Ok(reason), true),
            // A group that is not there yet is not worth waiting for.
            Phase::Forming(_) => self.abort_generation(0),
            _ => self.go_on(),
        }
    }

    pub(super) fn finish(&mut self, reason: StopReason) {
        self.phase = Phase::Finishing(Finishing {
            reason,
            until: self.now + self.recipe.grace,
            settled: CheckpointLookup::NotYet,
            waits: None,
            prediction_worker: None,
        });
        self.go_on_finishing();
    }

    /// One thing after the other: the best weights, a last checkpoint, the predictions.
    pub(super) fn go_on_finishing(&mut self) {
        let missing = self.best_is_missing();
        let Phase::Finishing(finishing) = &mut self.phase else {
            return;
        };
        let reason = finishing.reason;
        match finishing.settled {
            CheckpointLookup::NotYet if missing => {
                finishing.settled = CheckpointLookup::Asked;
                return self.out.push(Action::FindCheckpoint);
            }
            CheckpointLookup::Found(_) if missing && reason == StopReason::Interrupted => {
                let epoch = self.best_epoch();
                return self.fail(RunError::BestWeightsAbsent { epoch });
            }
            CheckpointLookup::Found(_) if missing => {
                // The end was near, but now there is something to make again.
                self.pause = None;
                let absent = self.recipe.workers.saturating_sub(self.members.len());
                return self.abort_generation(absent);
            }
            _ => {}
        }
        self.ask_for_best();
        if !self.best_is_stored() {
            return;
        }
        if reason == StopReason::Interrupted {
            self.ask_for_last_checkpoint();
            if self.checkpoints.is_awaited() {
                return;
            }
        }
        if let Phase::Finishing(Finishing { waits: None, .. }) = self.phase {
            self.send_finish();
        }
        if let Phase::Finishing(Finishing {
            waits: Some(waits), ..
        }) = &self.phase
            && waits.is_empty()
        {
            self.close(Ok(reason), false);
        }
    }

    /// A stopped run is resumed from where it is, by the worker that has come furthest.
    fn ask_for_last_checkpoint(&mut self) {
        let retained = |(id, member): (WorkerId, &Member)| {
            let at = match member.assignment {
                Some(_) => self.position,
                None => self.restart_of(member.retained?)?,
            };
            Some((at, Reverse(id)))
        };
        let furthest: Option<(Position, _)> = self.members.iter().filter_map(retained).max();
        if let Some((at, Reverse(worker))) = furthest
            && at > Position::start_of(1)
            && !self.is_durable(at)
            && !self.checkpoints.is_asked(worker, at)
        {
            self.checkpoints.ask(worker, at);
            let order = Command::SaveState(SaveState::Checkpoint);
            self.send(worker, order);
        }
    }

    /// Sends `Finish` to all workers in the group; one that has a model is to send predictions.
    fn send_finish(&mut self) {
        let mut told: Vec<WorkerId> = self.members.assigned().map(|(id, _, _)| id).collect();
        let prediction_worker = self.prediction_worker();
        told.retain(|id| Some(*id) != prediction_worker);
        if let Phase::Finishing(finishing) = &mut self.phase {
            finishing.waits = Some(told.iter().copied().collect());
        }
        let generation = self.generation;
        self.out.extend(told.into_iter().map(|id| {
            let predict = Vec::new();
            Action::Send(
                id,
                Command::Finish {
                    generation,
                    predict,
                },
            )
        }));
        self.ask_for_predictions();
    }

    fn ask_for_predictions(&mut self) {
        let (generation, prediction_worker) = (self.generation, self.prediction_worker());
        let predict = match (self.dataset.split(), self.history.best()) {
            (Some(split), Some(_)) => {
                let spacing = (split.validation.len() / SHOWN).max(1);
                let shown = split.validation.iter().step_by(spacing).take(SHOWN);
                shown.copied().collect()
            }
            _ => Vec::new(),
        };
        let Phase::Finishing(finishing) = &mut self.phase else {
            return;
        };
        finishing.prediction_worker = prediction_worker;
        if let (Some(waits), Some(worker)) = (&mut finishing.waits, prediction_worker) {
            waits.insert(worker);
            self.out.push(Action::Send(
                worker,
                Command::Finish {
                    generation,
                    predict,
                },
            ));
        }
    }

    /// The lowest rank, or, where there is no group, a member that retains a model.
    fn prediction_worker(&self) -> Option<WorkerId> {
        let holds = |member: &Member| member.stage == Stage::Ready && member.retained.is_some();
        let holder = || self.members.find(holds);
        self.members.lowest_rank().or_else(holder)
    }

    pub(super) fn on_finished(&mut self, worker: WorkerId, generation: u64) {
        if generation == self.generation
            && let Phase::Finishing(finishing) = &mut self.phase
            && let Some(waits) = &mut finishing.waits
            && waits.remove(&worker)
        {
            self.go_on_finishing();
        }
    }

    /// Whether a worker was sent `Finish`, and has finished.
    pub(super) fn has_finished(&self, worker: WorkerId) -> bool {
        let Phase::Finishing(finishing) = &self.phase else {
            return false;
        };
        let waits = finishing.waits.as_ref();
        waits.is_some_and(|waits| !waits.contains(&worker))
    }

    pub(super) fn lost_while_finishing(&mut self, worker: WorkerId) {
        if let Phase::Finishing(finishing) = &mut self.phase
            && let Some(waits) = &mut finishing.waits
            && waits.remove(&worker)
            && finishing.prediction_worker == Some(worker)
        {
            // Another one can compute them.
            self.ask_for_predictions();
        }
        self.go_on_finishing();
    }

    pub(super) fn finish_in_time(&mut self) {
        if let Phase::Finishing(Finishing { reason, until, .. }) = self.phase
            && self.now >= until
        {
            if self.checkpoints.is_awaited() {
                self.notify(Fact::CheckpointMissed);
            }
            // The results are complete without predictions, but not without the best weights.
            let outcome = match self.best_is_stored() {
                true => Ok(reason),
                false => Err(self.best_is_lost()),
            };
            self.close(outcome, true);
        }
    }

    fn best_is_lost(&self) -> RunError {
        RunError::BestWeightsLost {
            epoch: self.best_epoch(),
            grace: self.recipe.grace,
        }
    }

    fn best_epoch(&self) -> u32 {
        self.history.best().map_or(0, |best| best.epoch)
    }
}
