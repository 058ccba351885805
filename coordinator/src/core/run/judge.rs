//! The barrier at the end of an epoch: the sums over the ranks, and the verdict.

use std::ops::Range;

use super::{Now, Phase, Run};
use crate::core::early_stopping::Judgement;
use crate::core::event::{
    Action, Command, EpochReport, EpochSummary, Notice, RunError, StopReason, WorkerId,
};

impl Run {
    pub(super) fn on_epoch(
        &mut self,
        now: Now,
        worker: WorkerId,
        report: EpochReport,
        out: &mut Vec<Action>,
    ) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        if report.generation != self.generation || report.epoch != training.epoch {
            return;
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.report = Some(report);
        }
        if self.all(|member| member.report.is_some()) {
            self.judge_epoch(now, out);
        }
    }

    pub(super) fn judge_epoch(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        let (epoch, step_seconds) = (training.epoch, training.step_seconds);
        let wrong = self.members.iter().find(|(_, member)| {
            member
                .report
                .as_ref()
                .is_some_and(|report| !fits(report, &member.share))
        });
        if let Some((worker, member)) = wrong {
            let message = format!(
                "{} reported other samples of epoch {epoch} than it was given",
                self.describe(*worker)
            );
            let slot = member.slot;
            return self.fail(RunError::Internal { slot, message }, out);
        }
        let mut reports: Vec<(u32, EpochReport)> = self
            .members
            .values_mut()
            .filter_map(|member| Some((member.rank, member.report.take()?)))
            .collect();
        reports.sort_by_key(|(rank, _)| *rank);
        let reports: Vec<EpochReport> = reports.into_iter().map(|(_, report)| report).collect();
        let totals = Totals::of(&reports);
        let expected = (
            self.split.train.len() as u64,
            self.split.validation.len() as u64,
        );
        if (totals.trained, totals.validated) != expected {
            let message = format!(
                "epoch {epoch} used {} training and {} validation samples instead of {} and {}",
                totals.trained, totals.validated, expected.0, expected.1
            );
            return self.fail(
                RunError::Internal {
                    slot: None,
                    message,
                },
                out,
            );
        }
        let judgement = self.stopping.observe(epoch, totals.validation_loss);
        let improved = judgement == Judgement::Improved;
        let seconds = (training.trained.unwrap_or(now) - training.started).as_secs_f64();
        let finite = totals.train_loss.is_finite() && totals.validation_loss.is_finite();
        let reason = match judgement {
            _ if !finite => Some(StopReason::NonFiniteLoss),
            _ if self.interrupted.is_some() => self.interrupted,
            Judgement::OutOfPatience => Some(StopReason::Patience),
            _ if epoch >= self.recipe.schedule.epochs => Some(StopReason::MaxEpochs),
            _ => None,
        };
        out.push(Action::Notify(Notice::EpochEnded(EpochSummary {
            epoch,
            train_loss: totals.train_loss,
            validation_loss: totals.validation_loss,
            validation_accuracy: totals.accuracy,
            validated: totals.validated,
            rates: self.recipe.schedule.rates(epoch),
            images_per_second: totals.trained as f64 / seconds.max(1e-9),
            phases: reports.iter().map(|report| report.phases).collect(),
            seconds: (now - training.started).as_secs_f64(),
            world_size: self.members.len() as u32,
            generation: self.generation,
            improved,
            best: self.stopping.best(),
            wait: self.stopping.wait(),
        })));
        if improved {
            self.awaited_state = Some(epoch);
        }
        for id in self.members.keys() {
            let verdict = Command::Verdict {
                generation: self.generation,
                epoch,
                improved,
                validation_loss: totals.validation_loss,
            };
            out.push(Action::Send(*id, verdict));
        }
        match reason {
            None => self.start_epoch(now, epoch + 1, step_seconds, out),
            Some(reason) => {
                if self.interrupted.is_none() {
                    out.push(Action::Notify(Notice::Stopping(reason)));
                }
                self.finish(now, reason, out);
            }
        }
    }
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
    fn of(reports: &[EpochReport]) -> Self {
        let trained = reports.iter().map(|report| u64::from(report.samples)).sum();
        let loss: f64 = reports.iter().map(|report| report.loss_sum).sum();
        let chunks = || reports.iter().flat_map(|report| &report.validation);
        let validated = chunks().map(|sum| u64::from(sum.samples)).sum();
        let validation: f64 = chunks().map(|sum| sum.loss_sum).sum();
        let correct: u64 = chunks().map(|sum| u64::from(sum.correct)).sum();
        Self {
            train_loss: loss / trained as f64,
            trained,
            validation_loss: validation / validated as f64,
            accuracy: correct as f64 / validated as f64,
            validated,
        }
    }
}
