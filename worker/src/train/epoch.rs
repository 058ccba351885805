//! The training steps of one epoch.
//!
//! Gradients: rank r back-propagates `world_size / global_n · Σ loss` over its own samples and
//! DDP's Reducer divides the sum over ranks by `world_size`, which leaves the gradient of the
//! mean over the global batch, however unevenly the samples lie.

use std::sync::Arc;
use std::time::Instant;

use proto::v1;
use tch::{Kind, Reduction, Tensor};
use v1::worker_message::Message as Up;

use super::device::Compute;
use super::failure::{collective, internal};
use super::group::Rank;
use crate::control::{Grant, Inbox, Link};
use crate::data::{Cache, Loader};
use crate::model::{BatchNorm, LayerGroup};

pub(super) struct Epoch<'a> {
    pub(super) plan: &'a v1::EpochPlan,
    pub(super) labels: &'a Arc<[u32]>,
    pub(super) inbox: &'a Inbox,
    pub(super) link: &'a Link,
}

/// A completed epoch's sums.
#[derive(Debug, Default)]
pub(super) struct Trained {
    pub(super) loss_sum: f64,
    pub(super) samples: u32,
    pub(super) phases: v1::PhaseSeconds,
}

impl Epoch<'_> {
    /// Runs every step; `None` when an order to stop came between two of them.
    pub(super) fn train(
        &self,
        rank: &mut Rank,
        cache: &Cache,
        compute: &Compute,
        frozen: bool,
    ) -> Result<Option<Trained>, v1::Failure> {
        let rates = self.rates()?;
        let mut loader = Loader::new(
            cache.share(),
            self.labels.clone(),
            self.batches(),
            compute.device,
            Kind::Float,
        )
        .map_err(internal)?;
        let mut trained = Trained::default();
        for (step, (&local, &global)) in self
            .plan
            .local_counts
            .iter()
            .zip(&self.plan.global_counts)
            .enumerate()
        {
            if self.inbox.wait_for_grant(step as u32) == Grant::Stop {
                return Ok(None);
            }
            let started = Instant::now();
            let batch = loader
                .next()
                .ok_or_else(|| internal("the batch loader ended before the epoch"))?
                .map_err(internal)?;
            let data_wait = started.elapsed().as_secs_f64();
            let mode = if frozen || local == 0 {
                BatchNorm::Running
            } else {
                BatchNorm::Batch
            };
            let scale = match local {
                // A rank without samples takes part with a borrowed one that weighs nothing.
                0 => 0.0,
                _ => f64::from(rank.world_size) / f64::from(global),
            };
            let computing = Instant::now();
            rank.optimizer.zero_grad().map_err(internal)?;
            rank.reducer.prepare_for_forward().map_err(collective)?;
            let loss = rank
                .logits(&batch.images, mode)?
                .cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::Sum, -100, 0.0);
            let scaled = &loss * scale;
            rank.reducer.backward(&scaled).map_err(collective)?;
            let backward_done = computing.elapsed().as_secs_f64();
            let timings = rank.reducer.last_timings().map_err(collective)?;
            let waited = timings.map_or(0.0, |timings| timings.allreduce_wait.as_secs_f64());
            let optimizing = Instant::now();
            rank.optimizer.step(&rates).map_err(internal)?;
            let loss_sum = if local == 0 {
                0.0
            } else {
                loss.double_value(&[])
            };
            let phases = v1::PhaseSeconds {
                data_wait,
                forward_backward: (backward_done - waited).max(0.0),
                allreduce_wait: waited,
                optimizer: optimizing.elapsed().as_secs_f64(),
                validation: 0.0,
            };
            trained.loss_sum += loss_sum;
            trained.samples += local;
            add(&mut trained.phases, &phases);
            self.link.message(Up::StepReport(v1::StepReport {
                generation: self.plan.generation,
                epoch: self.plan.epoch,
                completed: step as u32 + 1,
                loss_sum,
                samples: local,
                seconds: started.elapsed().as_secs_f64(),
                phases: Some(phases),
            }));
        }
        Ok(Some(trained))
    }

    /// The samples of each step; where the rank has none, the first image of the set is borrowed.
    fn batches(&self) -> Vec<Vec<u32>> {
        let mut samples = self.plan.samples.as_slice();
        self.plan
            .local_counts
            .iter()
            .map(|&count| {
                let (batch, rest) = samples.split_at((count as usize).min(samples.len()));
                samples = rest;
                if batch.is_empty() {
                    vec![0]
                } else {
                    batch.to_vec()
                }
            })
            .collect()
    }

    fn rates(&self) -> Result<[f64; 6], v1::Failure> {
        let mut rates = [0.0; 6];
        for (rate, group) in rates.iter_mut().zip(LayerGroup::ALL) {
            *rate = self
                .plan
                .rates
                .iter()
                .find(|entry| entry.group == group.as_str())
                .ok_or_else(|| internal(format!("no learning rate for {}", group.as_str())))?
                .rate;
        }
        Ok(rates)
    }
}

fn add(sum: &mut v1::PhaseSeconds, step: &v1::PhaseSeconds) {
    sum.data_wait += step.data_wait;
    sum.forward_backward += step.forward_backward;
    sum.allreduce_wait += step.allreduce_wait;
    sum.optimizer += step.optimizer;
}
