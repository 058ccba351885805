//! The barrier at the end of an epoch: the sums over the ranks, and the verdict.

use std::ops::Range;

use super::{Now, Pause, Phase, Run, Training};
use crate::early_stopping::Judgement;
use crate::event::{
    Action, Command, EpochReport, Fact, FinishedEpoch, LossCause, Phases, Position, RunError, Span,
    StopReason, WorkerId,
};

impl Run {
    pub(super) fn on_epoch(
        &mut self,
        now: Now,
        worker: WorkerId,
        report: EpochReport,
        out: &mut Vec<Action>,
    ) {
        let Phase::Training(Training { steps, .. }) = self.phase else {
            return;
        };
        if report.generation != self.generation || report.epoch != self.position.epoch {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let local_rank = member.local_rank;
        let Some(assignment) = &mut member.assignment else {
            return;
        };
        if assignment.completed < steps {
            return;
        }
        if !fits(&report, &assignment.share) {
            // Its process does not do what it is told, and another one would not either.
            self.close_local_rank(local_rank);
            let epoch = self.position.epoch;
            return self.evict(now, worker, LossCause::WrongSamples { epoch }, out);
        }
        assignment.report = Some(report);
        if self
            .assigned()
            .all(|(_, _, assignment)| assignment.report.is_some())
        {
            self.judge_epoch(now, out);
        }
    }

    fn judge_epoch(&mut self, now: Now, out: &mut Vec<Action>) {
        let (Phase::Training(training), Some(split)) = (&self.phase, &self.split) else {
            return;
        };
        let epoch = self.position.epoch;
        let (started, trained) = (training.started, training.trained.unwrap_or(now));
        let (steps, expected) = (training.steps, split.validation.len() as u64);
        let samples = split.train.len() as u64;
        let mut reports: Vec<(u32, EpochReport)> = self
            .assignments()
            .filter_map(|(_, assignment)| Some((assignment.rank, assignment.report.take()?)))
            .collect();
        reports.sort_by_key(|(rank, _)| *rank);
        let reports: Vec<EpochReport> = reports.into_iter().map(|(_, report)| report).collect();
        let totals = Totals::of(&reports, samples);
        if totals.validated != expected || !tiles(&self.ledger, steps) {
            let error = RunError::InconsistentEpoch {
                epoch,
                validated: totals.validated,
                expected,
                ledger: self.ledger.clone(),
            };
            return self.fail(error, out);
        }
        let judgement = self.stopping.observe(epoch, totals.validation_loss);
        self.validation_losses.push(totals.validation_loss);
        let improved = judgement == Judgement::Improved;
        let seconds = (trained - started).as_secs_f64();
        let finite = totals.train_loss.is_finite() && totals.validation_loss.is_finite();
        let reason = match (self.over(), self.pause) {
            _ if !finite => Some(StopReason::NonFiniteLoss),
            (Some(reason), _) => Some(reason),
            (None, Some(Pause::Stop(reason))) => Some(reason),
            (None, _) => None,
        };
        let ranks: Vec<Phases> = reports.iter().map(|report| report.phases).collect();
        let finished = FinishedEpoch {
            epoch,
            train_loss: totals.train_loss,
            validation_loss: totals.validation_loss,
            validation_accuracy: totals.accuracy,
            lrs: self.recipe.schedule.lrs(epoch),
            // Of this generation, which may have made only a part of the epoch.
            images_per_second: totals.trained as f64 / seconds.max(1e-9),
            phases: Phases::mean(&ranks),
            seconds: (now - started).as_secs_f64(),
            world_size: self.world_size() as u32,
            generation: self.generation,
            ledger: std::mem::take(&mut self.ledger),
        };
        out.push(Action::Notify(Fact::EpochEnded {
            epoch: finished,
            validated: totals.validated,
            ranks,
            stopping: self.stopping.standing(),
        }));
        let epoch_result = |id| {
            let epoch_result = Command::EpochResult {
                generation: self.generation,
                epoch,
                improved,
                validation_loss: totals.validation_loss,
            };
            Action::Send(id, epoch_result)
        };
        out.extend(self.assigned().map(|(id, _, _)| epoch_result(id)));
        self.position = Position::start_of(epoch + 1);
        if improved {
            self.awaited_best = None;
            for member in self.members.values_mut() {
                member.best = member.assignment.is_some().then_some(epoch);
            }
        }
        self.ask_for_best(out);
        match reason {
            Some(reason) => {
                if self.pause != Some(Pause::Stop(reason)) {
                    out.push(Action::Notify(Fact::Stopping(reason)));
                }
                self.finish(now, reason, out);
            }
            None => {
                self.last_checkpoint = (now, 0);
                self.checkpoint_due = true;
                if self.pause == Some(Pause::Regroup) {
                    self.abort_generation(now, 0, out);
                } else {
                    self.start_epoch(now, out);
                }
            }
        }
    }
}

impl Run {
    /// Why nothing is left to train, by the losses of the judged epochs.
    pub(super) fn over(&self) -> Option<StopReason> {
        let last = self.validation_losses.last()?;
        if !last.is_finite() {
            Some(StopReason::NonFiniteLoss)
        } else if self.stopping.is_out_of_patience() {
            Some(StopReason::Patience)
        } else {
            let epochs = self.recipe.schedule.epochs as usize;
            (self.validation_losses.len() >= epochs).then_some(StopReason::MaxEpochs)
        }
    }
}

/// Whether the spans are all steps of an epoch, each once, in order.
fn tiles(ledger: &[Span], steps: u32) -> bool {
    let end = ledger.iter().try_fold(0, |at, span| {
        (span.first == at && span.end >= at).then_some(span.end)
    });
    end == Some(steps)
}

/// Whether a report is about what the rank was given: its samples, its chunks, once each.
fn fits(report: &EpochReport, (samples, chunks): &(u32, Range<u32>)) -> bool {
    report.samples == *samples
        && report
            .validation
            .iter()
            .map(|sum| sum.chunk)
            .eq(chunks.clone())
        && report
            .validation
            .iter()
            .all(|sum| sum.correct <= sum.samples)
}

struct Totals {
    train_loss: f64,
    trained: u64,
    validation_loss: f64,
    accuracy: f64,
    validated: u64,
}

impl Totals {
    /// Adds in f64, chunk by chunk in the order of the validation set: the same for any world.
    /// `reports` are in the order of the ranks, whose chunks follow each other.
    /// All ranks know the same loss of the `samples` that the epoch trained on.
    fn of(reports: &[EpochReport], samples: u64) -> Self {
        let trained = reports.iter().map(|report| u64::from(report.samples)).sum();
        let loss = reports.first().map_or(f64::NAN, |report| report.loss_sum);
        let chunks = || reports.iter().flat_map(|report| &report.validation);
        let validated = chunks().map(|sum| u64::from(sum.samples)).sum();
        let validation: f64 = chunks().map(|sum| sum.loss_sum).sum();
        let correct: u64 = chunks().map(|sum| u64::from(sum.correct)).sum();
        Self {
            train_loss: loss / samples as f64,
            trained,
            validation_loss: validation / validated as f64,
            accuracy: correct as f64 / validated as f64,
            validated,
        }
    }
}
