//! One training step.
//!
//! Gradients: rank r back-propagates `world_size / global_n · Σ loss` over its own samples and
//! DDP's Reducer divides the sum over ranks by `world_size`, which leaves the gradient of the
//! mean over the global batch, however unevenly the samples lie.

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

/// A step that the device may still work on.
pub(super) struct BegunStep {
    /// Over the global batch: float32 `[1]`.
    mean_loss: HostCopy,
    /// Samples of this rank, and of all.
    local: u32,
    global: u32,
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
        let batch = epoch
            .training
            .next()
            .ok_or_else(|| internal("the batch loader ended before the epoch"))?
            .map_err(internal)?;
        let data_wait = started.elapsed().as_secs_f64();
        let (local, global) = (plan.local_counts[index], plan.global_counts[index]);
        let moves = !self.settings.frozen_batch_norm && local > 0;
        let mode = match moves {
            true => Statistics::Batch,
            false => Statistics::Running,
        };
        let scale = match local {
            // A rank without samples takes part with a sample of weight 0.
            0 => 0.0,
            _ => f64::from(rank.world_size) / f64::from(global),
        };
        let computing = Instant::now();
        self.activity.enter(Activity::Forward);
        self.compute.tune(Some(&local) == plan.local_counts.first());
        replica.begin_step(moves);
        rank.begin_step(&replica.optimizer)?;
        let loss = replica
            .logits(&batch.images, mode)?
            .cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::Sum, -100, 0.0);
        self.activity.enter(Activity::Backward);
        let mean_loss = rank.backward(&(&loss * scale))?;
        let backward_done = computing.elapsed().as_secs_f64();
        let waited = rank.allreduce_wait()?;
        let optimizing = Instant::now();
        self.activity.enter(Activity::Optimizer);
        replica.optimizer.step(&plan.lrs).map_err(internal)?;
        replica.end_step();
        self.activity.at(plan.generation, replica.position());
        let begun = BegunStep {
            mean_loss,
            local,
            global,
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
        if !self.compute.works_behind() {
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

impl EpochRun {
    /// Waits for the results of the steps that have begun.
    fn results(&mut self, replica: &mut Replica) -> Result<Vec<Stepped>, TrainError> {
        let result = |step: BegunStep| {
            let waiting = Instant::now();
            let mean_loss = step.mean_loss.wait().map_err(device)?.double_value(&[0]);
            let waited = waiting.elapsed().as_secs_f64();
            replica.add_loss(mean_loss, step.global);
            Ok(Stepped {
                loss_sum: mean_loss * f64::from(step.local),
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
