//! The barrier at the end of an epoch: the sums over the ranks, and the verdict.

use super::{Now, Phase, Run};
use crate::core::early_stopping::Judgement;
use crate::core::event::{
    Action, Command, EpochReport, EpochSummary, Notice, Phases, RunError, StopReason, WorkerId,
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
        let reports: Vec<EpochReport> = self
            .members
            .values_mut()
            .filter_map(|member| member.report.take())
            .collect();
        let (epoch, step_seconds) = (training.epoch, training.step_seconds);
        let totals = Totals::of(&reports);
        let expected = (self.split.train.len(), self.split.validation.len());
        if (totals.trained, totals.validated) != expected {
            let message = format!(
                "epoch {epoch} used {} training and {} validation samples instead of {} and {}",
                totals.trained, totals.validated, expected.0, expected.1
            );
            return self.fail(RunError::Internal(message), out);
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
            validated: totals.validated as u64,
            rates: self.recipe.schedule.rates(epoch),
            images_per_second: totals.trained as f64 / seconds.max(1e-9),
            phases: totals.phases,
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

struct Totals {
    train_loss: f64,
    trained: usize,
    validation_loss: f64,
    accuracy: f64,
    validated: usize,
    phases: Phases,
}

impl Totals {
    /// Adds in f64, chunk by chunk in the order of the validation set: the same for any world.
    fn of(reports: &[EpochReport]) -> Self {
        let trained: usize = reports.iter().map(|report| report.samples as usize).sum();
        let loss: f64 = reports.iter().map(|report| report.loss_sum).sum();
        let mut chunks: Vec<_> = reports
            .iter()
            .flat_map(|report| &report.validation)
            .collect();
        chunks.sort_by_key(|sum| sum.chunk);
        chunks.dedup_by_key(|sum| sum.chunk);
        let validated: usize = chunks.iter().map(|sum| sum.samples as usize).sum();
        let validation: f64 = chunks.iter().map(|sum| sum.loss_sum).sum();
        let correct: u32 = chunks.iter().map(|sum| sum.correct).sum();
        let mean = |seconds: fn(&Phases) -> f64| {
            reports
                .iter()
                .map(|report| seconds(&report.phases))
                .sum::<f64>()
                / reports.len() as f64
        };
        Self {
            train_loss: loss / trained as f64,
            trained,
            validation_loss: validation / validated as f64,
            accuracy: f64::from(correct) / validated as f64,
            validated,
            phases: Phases {
                data_wait: mean(|p| p.data_wait),
                forward_backward: mean(|p| p.forward_backward),
                allreduce_wait: mean(|p| p.allreduce_wait),
                optimizer: mean(|p| p.optimizer),
                validation: mean(|p| p.validation),
            },
        }
    }
}
