//! One training step.

use std::sync::Arc;
use std::time::Instant;

use c10d::HostCopy;
use tch::{Reduction, Tensor};
use worker_control::{Activity, Done, EpochPlan, Phases, State as _, Stepped, TrainError};

use super::Worker;
use super::epoch::EpochRun;
use super::failure::{device, internal};
use super::replica::Replica;
use crate::model::Statistics;
use worker_data::Batch;

/// What makes a step: two of the same kind differ in nothing but the batch, the learning rates and
/// the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepKind {
    /// Samples of this rank, and of all.
    pub(super) local: u32,
    pub(super) global: u32,
    /// Whether BatchNorm's running statistics move.
    pub(super) moves: bool,
}

/// A step that the device may still work on.
pub(super) struct BegunStep {
    mean_loss: HostCopy,
    kind: StepKind,
    seconds: f64,
    phases: Phases,
}

impl Worker<'_> {
    pub(super) fn step(
        &mut self,
        plan: &Arc<EpochPlan>,
        index: usize,
    ) -> Result<Done<Replica>, TrainError> {
        let started = Instant::now();
        self.begin_epoch(plan)?;
        self.activity.enter(Activity::DataWait);
        let (Some(epoch), Some(rank), Some(replica)) =
            (&mut self.epoch, &mut self.rank, self.control.state_mut())
        else {
            return Err(internal("a step without a group or a state"));
        };
        self.activity.at(plan.generation, replica.position());
        let batch = epoch.next_batch()?;
        let data_wait = started.elapsed().as_secs_f64();
        let (local, global) = (plan.local_counts[index], plan.global_counts[index]);
        let kind = StepKind {
            local,
            global,
            moves: !self.settings.frozen_batch_norm && local > 0,
        };
        let usual = Some(&local) == plan.local_counts.first();
        self.compute.tune(usual);
        replica.optimizer.set_rates(&plan.lrs).map_err(internal)?;
        let computing = Instant::now();
        if !rank.is_alone() {
            replica.begin_step(kind.moves);
        }
        let reduction = rank.reduction(replica, global)?;
        let gpu = self.compute.gpu();
        let repeats = gpu.filter(|_| usual && reduction.is_repeatable());
        let batch = self.repeated.begin(kind, repeats, batch)?;
        self.activity.enter(Activity::Forward);
        let part = self.repeated.gradients(|| {
            reduction.gradients(replica, || {
                let loss = loss(replica, &batch, kind)?;
                self.activity.enter(Activity::Backward);
                Ok(loss)
            })
        })?;
        self.activity.enter(Activity::Backward);
        let mean_loss = reduction.reduce(&part)?;
        let backward_done = computing.elapsed().as_secs_f64();
        let waited = reduction.waited()?;
        let optimizing = Instant::now();
        self.activity.enter(Activity::Optimizer);
        let update = || replica.optimizer.update().map_err(internal);
        self.repeated.update(update)?;
        replica.end_step(kind.moves);
        self.activity.at(plan.generation, replica.position());
        let begun = BegunStep {
            mean_loss,
            kind,
            seconds: started.elapsed().as_secs_f64(),
            phases: Phases {
                data_wait,
                forward_backward: (backward_done - waited).max(0.0),
                allreduce_wait: waited,
                optimizer: optimizing.elapsed().as_secs_f64(),
                validation: 0.0,
            },
        };
        // A GPU works on this step while the results of those before are awaited.
        let mut results = epoch.results(replica)?;
        epoch.begun.push(begun);
        // Where another rank can break the next step, nothing may be left to that.
        if gpu.is_none() || !rank.is_alone() {
            results.extend(epoch.results(replica)?);
        }
        if index + 1 == plan.local_counts.len() {
            // Also a rank without a chunk is part of the validation.
            self.activity.enter(Activity::Validation);
        }
        Ok(Done::Stepped(results))
    }

    /// Waits for all results that are still to come.
    pub(super) fn settle(&mut self) -> Result<Done<Replica>, TrainError> {
        let started = Instant::now();
        let (Some(epoch), Some(replica)) = (&mut self.epoch, self.control.state_mut()) else {
            return Err(internal("results without an epoch or a state"));
        };
        let results = epoch.results(replica)?;
        if !results.is_empty() {
            return Ok(Done::Stepped(results));
        }
        let sums = epoch.sums()?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Done::Validated { sums, seconds })
    }
}

/// This rank's part of the mean loss over the global batch: float32 `[]`.
fn loss(replica: &Replica, batch: &Batch, kind: StepKind) -> Result<Tensor, TrainError> {
    let mode = match kind.moves {
        true => Statistics::Batch,
        false => Statistics::Running,
    };
    let share = match kind.local {
        // A rank without samples takes part with a sample of weight 0.
        0 => 0.0,
        _ => 1.0 / f64::from(kind.global),
    };
    let logits = replica.logits(&batch.images, mode)?;
    let sum = logits.cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::Sum, -100, 0.0);
    Ok(sum * share)
}

impl EpochRun {
    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        let ended = || internal("the batch loader ended before the epoch");
        self.training.next().ok_or_else(ended)?.map_err(internal)
    }

    /// Waits for the results of the steps that have begun.
    fn results(&mut self, replica: &mut Replica) -> Result<Vec<Stepped>, TrainError> {
        let result = |step: BegunStep| {
            let waiting = Instant::now();
            let mean_loss = step.mean_loss.wait().map_err(device)?.double_value(&[0]);
            let waited = waiting.elapsed().as_secs_f64();
            replica.add_loss(mean_loss, step.kind.global);
            Ok(Stepped {
                loss_sum: mean_loss * f64::from(step.kind.local),
                seconds: step.seconds + waited,
                phases: Phases {
                    forward_backward: step.phases.forward_backward + waited,
                    ..step.phases
                },
            })
        };
        self.begun.drain(..).map(result).collect()
    }
}
