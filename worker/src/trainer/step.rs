//! One training step.
//!
//! Gradients: rank r back-propagates `world_size / global_n · Σ loss` over its own samples and
//! DDP's Reducer divides the sum over ranks by `world_size`, which leaves the gradient of the
//! mean over the global batch, however unevenly the samples lie.

use std::sync::Arc;
use std::time::Instant;

use tch::{Reduction, Tensor};
use worker_control::{Activity, Done, EpochPlan, Phases, State as _, TrainError};

use super::Worker;
use super::failure::internal;
use super::replica::Replica;
use crate::model::Statistics;

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
        replica.begin_step(moves);
        replica.optimizer.zero_grad().map_err(internal)?;
        rank.prepare_for_forward()?;
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
        replica.end_step(mean_loss, global);
        self.activity.at(plan.generation, replica.position());
        if index + 1 == plan.local_counts.len() {
            // Also a rank without a chunk is part of the validation.
            self.activity.enter(Activity::Validation);
        }
        Ok(Done::Stepped {
            loss_sum: mean_loss * f64::from(local),
            seconds: started.elapsed().as_secs_f64(),
            phases: Phases {
                data_wait,
                forward_backward: (backward_done - waited).max(0.0),
                allreduce_wait: waited,
                optimizer: optimizing.elapsed().as_secs_f64(),
                validation: 0.0,
            },
        })
    }
}
