//! The barrier at the end of an epoch: the sums over the ranks, and what follows from them.

use super::Run;
use super::parts::{Assignment, Share};
use super::phase::{Pause, Phase, Training};
use crate::event::{
    Action, Command, EpochReport, Fact, FinishedEpoch, LossCause, Phases, Position, RunError,
    StopReason, WorkerId,
};

impl Run {
    pub(super) fn on_epoch_done(&mut self, worker: WorkerId, report: EpochReport) {
        let Phase::Training(Training { steps, .. }) = self.phase else {
            return;
        };
        if report.generation != self.generation || report.epoch != self.position.epoch {
            return;
        }
        let Some(member) = self.members.get_mut(worker) else {
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
            // Its program has a defect, and would do the same after a restart.
            self.local_workers.close(local_rank);
            let epoch = self.position.epoch;
            return self.evict(worker, LossCause::WrongSamples { epoch });
        }
        assignment.report = Some(report);
        let done = |(_, _, assignment): (_, _, &Assignment)| assignment.report.is_some();
        if self.members.assigned().all(done) {
            self.finish_epoch();
        }
    }

    fn finish_epoch(&mut self) {
        let reports = self.take_reports();
        let (Phase::Training(training), Some(split)) = (&self.phase, self.dataset.split()) else {
            return;
        };
        let epoch = self.position.epoch;
        let (steps, expected) = (training.steps, split.validation.len() as u64);
        let totals = Totals::of(&reports, split.train.len() as u64);
        if totals.validated != expected || !self.ledger.is_whole(steps) {
            let error = RunError::InconsistentEpoch {
                epoch,
                validated: totals.validated,
                expected,
                ledger: self.ledger.spans().to_vec(),
            };
            return self.fail(error);
        }
        let trained = training.trained.unwrap_or(self.now) - training.started;
        let ranks: Vec<Phases> = reports.iter().map(|report| report.phases).collect();
        let finished = FinishedEpoch {
            epoch,
            train_loss: totals.train_loss,
            validation_loss: totals.validation_loss,
            validation_accuracy: totals.accuracy,
            lrs: training.lrs,
            // Of this generation, which may have made only a part of the epoch.
            images_per_second: totals.trained as f64 / trained.as_secs_f64().max(1e-9),
            phases: Phases::mean(&ranks),
            seconds: (self.now - training.started).as_secs_f64(),
            world_size: self.members.world_size() as u32,
            generation: self.generation,
            ledger: self.ledger.take(),
        };
        let improved = self.history.push(totals.validation_loss);
        self.notify(Fact::EpochEnded {
            epoch: finished,
            validated: totals.validated,
            ranks,
            stopping: self.history.standing(),
        });
        self.send_result(epoch, improved, totals.validation_loss);
        self.position = Position::start_of(epoch + 1);
        if improved {
            self.best_weights.forget();
            for member in self.members.values_mut() {
                // One that waits may hold those of the same epoch, made before a rollback.
                if member.is_assigned() {
                    member.best = Some(epoch);
                } else {
                    member.best = member.best.filter(|held| *held == epoch);
                }
            }
        }
        self.ask_for_best();
        self.after_epoch(totals.is_finite());
    }

    /// The reports of the epoch, in the order of the ranks.
    fn take_reports(&mut self) -> Vec<EpochReport> {
        let assignments = self.members.assignments_mut();
        let mut reports: Vec<(u32, EpochReport)> = assignments
            .filter_map(|(_, assignment)| Some((assignment.rank, assignment.report.take()?)))
            .collect();
        reports.sort_by_key(|(rank, _)| *rank);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    fn send_result(&mut self, epoch: u32, improved: bool, validation_loss: f64) {
        self.out.extend(self.members.assigned().map(|(id, _, _)| {
            let result = Command::EpochResult {
                epoch,
                improved,
                validation_loss,
            };
            Action::Send(id, result)
        }));
    }

    /// Ends training, or continues with the next epoch or with other members.
    fn after_epoch(&mut self, finite: bool) {
        let reason = match (self.history.end(), self.pause) {
            _ if !finite => Some(StopReason::NonFiniteLoss),
            (Some(reason), _) => Some(reason),
            (None, Some(Pause::Stop(reason))) => Some(reason),
            (None, _) => None,
        };
        if let Some(reason) = reason {
            if self.pause != Some(Pause::Stop(reason)) {
                self.notify(Fact::Stopping(reason));
            }
            return self.finish(reason);
        }
        self.checkpoints.finish_epoch(self.now);
        if self.pause == Some(Pause::Regroup) {
            self.abort_generation(0);
        } else {
            self.start_epoch();
        }
    }
}

/// Whether a report is about what the rank was given: its samples, its chunks, once each.
fn fits(report: &EpochReport, share: &Share) -> bool {
    let chunks = report.validation.iter().map(|sum| sum.chunk);
    let mut sums = report.validation.iter();
    report.samples == share.samples
        && chunks.eq(share.chunks.clone())
        && sums.all(|sum| sum.correct <= sum.samples)
}

/// An epoch over all ranks.
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

    fn is_finite(&self) -> bool {
        self.train_loss.is_finite() && self.validation_loss.is_finite()
    }
}
