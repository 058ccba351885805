//! Facts as metrics.

use super::{Metrics, RankFacts, StepSeconds};
use crate::net::clock::unix_seconds;
use crate::observe::view::RunView;
use coordinator_core::Fact;
use coordinator_core::event::Phases;

impl Metrics {
    /// Shows a fact; `view` has taken it into account.
    pub(in crate::observe) fn apply(&self, fact: &Fact, view: &RunView) {
        if let Some(state) = view.entered() {
            self.set_run_state(state);
        }
        match fact {
            Fact::Lost { .. } => self.worker_lost(),
            Fact::BadFile { .. } => self.add_decode_errors(1),
            Fact::Recovered { cause, seconds, .. } => self.recovered(*cause, *seconds),
            Fact::GroupFormed {
                generation, ranks, ..
            } => {
                let facts: Vec<RankFacts> = ranks
                    .iter()
                    .map(|of| RankFacts {
                        host: of.host.clone(),
                        device: of.device.clone(),
                        gpu_uuid: of.gpu_uuid.clone(),
                    })
                    .collect();
                self.begin_generation(*generation, &facts, unix_seconds());
            }
            Fact::EpochStarted {
                epoch,
                completed,
                steps,
                lrs,
                ..
            } => {
                self.set_epoch_steps(*completed, *steps);
                self.set_checkpoint_lag(view.checkpoint_lag());
                self.begin_epoch(*epoch, *lrs);
            }
            Fact::Step { rank, report } => {
                let seconds = step_seconds(report.seconds, &report.phases);
                self.rank_step(*rank as usize, seconds);
                self.show_completed_step(view);
            }
            Fact::EpochEnded {
                epoch,
                validated,
                ranks,
                stopping,
            } => {
                self.set_validation(epoch.validation_loss, epoch.validation_accuracy);
                for (rank, phases) in ranks.iter().enumerate() {
                    // The counter of samples has no rank: the first one brings all of them.
                    let samples = if rank == 0 { *validated } else { 0 };
                    self.rank_validation(rank, phases.validation, samples);
                }
                if let Some(best) = stopping.best {
                    self.set_best(best.epoch, best.loss, stopping.wait);
                }
            }
            _ => {}
        }
    }

    fn show_completed_step(&self, view: &RunView) {
        let Some(step) = view.completed() else {
            return;
        };
        self.step_done(step.samples, unix_seconds());
        // Steps of an epoch fit, as they are counted so.
        self.set_epoch_steps(step.step as u32, step.steps as u32);
        self.set_checkpoint_lag(view.checkpoint_lag());
        for (rank, ratio) in view.straggler_ratios().into_iter().enumerate() {
            self.set_straggler(rank, ratio);
        }
        self.set_training(step.loss, step.images_per_second);
    }
}

fn step_seconds(step: f64, phases: &Phases) -> StepSeconds {
    StepSeconds {
        step,
        data_wait: phases.data_wait,
        forward_backward: phases.forward_backward,
        allreduce_wait: phases.allreduce_wait,
        optimizer: phases.optimizer,
    }
}
