//! The running epoch as it is shown, and its record when it is done.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Observers;
use crate::net::clock::unix_seconds;
use crate::observe::console::StepView;
use crate::observe::metrics::{RunState, StepSeconds};
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{FinishedEpoch, Phases, StepReport};
use coordinator_core::schedule::GroupLrs;

/// Sums over the steps of the running epoch.
#[derive(Debug)]
pub(super) struct EpochSoFar {
    epoch: u32,
    steps: u32,
    started: Instant,
    loss_sum: f64,
    samples: u64,
    /// Not yet in the metrics, as their step is not complete.
    uncounted: u64,
    completed: BTreeMap<u32, u32>,
}

impl EpochSoFar {
    /// An epoch of which no rank has made a step.
    pub(super) fn new(epoch: u32, completed: u32, steps: u32, world_size: u32) -> Self {
        Self {
            epoch,
            steps,
            started: Instant::now(),
            loss_sum: 0.0,
            samples: 0,
            uncounted: 0,
            completed: (0..world_size).map(|rank| (rank, completed)).collect(),
        }
    }

    /// Steps that every rank has made.
    fn slowest(&self) -> u32 {
        self.completed.values().copied().min().unwrap_or(0)
    }
}

impl Observers {
    pub(super) fn epoch_started(
        &mut self,
        epoch: u32,
        completed: u32,
        steps: u32,
        world_size: u32,
        lrs: GroupLrs,
    ) {
        self.epoch = EpochSoFar::new(epoch, completed, steps, world_size);
        self.trace(|traces| traces.epoch_started(epoch, completed, world_size));
        self.enter(RunState::Training);
        self.metrics.set_epoch_steps(completed, steps);
        self.show_lag();
        self.metrics.begin_epoch(epoch, lrs);
        self.show_rates(lrs);
        self.status.change(|status| {
            status.waiting_for = None;
            status.epoch = epoch;
            status.step = completed.into();
            status.steps_per_epoch = steps.into();
        });
    }

    pub(super) fn step(&mut self, rank: u32, report: &StepReport) {
        let before = self.epoch.slowest();
        self.epoch.completed.insert(rank, report.completed);
        self.epoch.loss_sum += report.loss_sum;
        self.epoch.samples += u64::from(report.samples);
        self.metrics.rank_step(
            rank as usize,
            StepSeconds {
                step: report.seconds,
                data_wait: report.phases.data_wait,
                forward_backward: report.phases.forward_backward,
                allreduce_wait: report.phases.allreduce_wait,
                optimizer: report.phases.optimizer,
            },
        );
        self.stragglers
            .add(rank as usize, report.seconds - report.phases.allreduce_wait);
        self.epoch.uncounted += u64::from(report.samples);
        let made = report.completed.into();
        self.show_rank(rank as usize, |view| view.step = made);
        let done = self.epoch.slowest();
        if done == before {
            return;
        }
        self.metrics
            .step_done(std::mem::take(&mut self.epoch.uncounted), unix_seconds());
        self.metrics.set_epoch_steps(done, self.epoch.steps);
        self.show_lag();
        for (rank, ratio) in self.stragglers.ratios().into_iter().enumerate() {
            self.metrics.set_straggler(rank, ratio);
            self.show_rank(rank, |view| view.straggler_ratio = Some(ratio));
        }
        let elapsed = self.epoch.started.elapsed().as_secs_f64();
        let loss = self.epoch.loss_sum / self.epoch.samples.max(1) as f64;
        let images_per_second = self.epoch.samples as f64 / elapsed.max(1e-9);
        self.metrics.set_training(loss, images_per_second);
        if done == self.epoch.steps {
            self.enter(RunState::Validating);
        }
        self.status.change(|status| {
            status.step = done.into();
            status.train_loss = Some(loss);
            status.images_per_second = images_per_second;
        });
        let view = StepView {
            epoch: self.epoch.epoch,
            epochs: self.epochs,
            step: done.into(),
            steps: self.epoch.steps.into(),
            loss,
            images_per_second,
            elapsed,
        };
        self.show_time_left(&view);
        self.progress.step(&view);
    }

    /// Shows how many steps lie between the newest checkpoint and where the run stands.
    pub(super) fn show_lag(&self) {
        let steps = u64::from(self.epoch.steps);
        let index = |epoch: u32, completed: u32| u64::from(epoch) * steps + u64::from(completed);
        let durable = index(self.durable.epoch, self.durable.completed);
        let now = index(self.epoch.epoch, self.epoch.slowest());
        self.metrics.set_checkpoint_lag(now.saturating_sub(durable));
    }

    pub(super) fn epoch_ended(
        &mut self,
        epoch: FinishedEpoch,
        validated: u64,
        ranks: &[Phases],
        stopping: Standing,
    ) {
        let improved = stopping.best.is_some_and(|best| best.epoch == epoch.epoch);
        self.stopping = stopping;
        self.trace(|traces| traces.epoch_ended(&epoch, improved));
        self.metrics
            .set_validation(epoch.validation_loss, epoch.validation_accuracy);
        for (rank, phases) in ranks.iter().enumerate() {
            // The counter of samples has no rank, so the first one brings all of them.
            let samples = if rank == 0 { validated } else { 0 };
            self.metrics
                .rank_validation(rank, phases.validation, samples);
        }
        if let Some(best) = stopping.best {
            self.metrics.set_best(best.epoch, best.loss, stopping.wait);
        }
        self.progress.epoch(&epoch, self.epochs, improved);
        self.finished.push(epoch);
        self.show_epochs();
    }
}
