//! The training steps of one epoch.
//!
//! Gradients: rank r back-propagates `world_size / global_n · Σ loss` over its own samples and
//! DDP's Reducer divides the sum over ranks by `world_size`, which leaves the gradient of the
//! mean over the global batch, however unevenly the samples lie.

use std::sync::Arc;
use std::time::Instant;

use proto::v1;
use tch::{Reduction, Tensor};
use v1::worker_message::Message as Up;

use super::device::Compute;
use super::failure::internal;
use super::group::RankHandle;
use super::replica::Replica;
use crate::agent::activity::ActivityTracker;
use crate::control::{Grant, Inbox, Link, Outgoing};
use crate::data::{Cache, Loader};
use crate::model::{LayerGroup, Statistics};

pub(super) struct Epoch<'a> {
    pub(super) plan: &'a v1::EpochPlan,
    pub(super) labels: &'a Arc<[u32]>,
    pub(super) inbox: &'a Inbox,
    pub(super) link: &'a Link,
    pub(super) place: &'a ActivityTracker,
    pub(super) frozen: bool,
}

/// What this rank did of an epoch.
#[derive(Debug, Default)]
pub(super) struct Trained {
    pub(super) samples: u32,
    pub(super) phases: v1::PhaseSeconds,
}

impl Epoch<'_> {
    /// Runs every step that is left; `None` when an order came between two of them.
    pub(super) fn train(
        &self,
        rank_handle: &mut RankHandle,
        replica: &mut Replica,
        cache: &Cache,
        compute: &Compute,
    ) -> Result<Option<Trained>, v1::Failure> {
        let lrs = self.lrs()?;
        let mut loader = Loader::new(
            cache.share(),
            self.labels.clone(),
            self.batches(),
            compute.device,
            replica.image_kind(),
        )
        .map_err(internal)?;
        let mut trained = Trained::default();
        let counts = self.plan.local_counts.iter().zip(&self.plan.global_counts);
        for (&local, &global) in counts {
            self.place.at(rank_handle.generation, replica.position);
            if !self.may_step(replica)? {
                return Ok(None);
            }
            let report = self.step(rank_handle, replica, &mut loader, &lrs, (local, global))?;
            trained.samples += local;
            if let Some(phases) = &report.phases {
                add(&mut trained.phases, phases);
            }
            self.link.message(Up::StepReport(report));
        }
        self.place.at(rank_handle.generation, replica.position);
        Ok(Some(trained))
    }

    /// Waits for the grant of the next step; takes a checkpoint where one is wanted.
    fn may_step(&self, replica: &Replica) -> Result<bool, v1::Failure> {
        loop {
            match self.inbox.try_grant(replica.position.completed) {
                Some(Grant::Go) => return Ok(true),
                Some(Grant::Stop) => return Ok(false),
                Some(Grant::Checkpoint) => checkpoint(replica, self.link)?,
                None => {
                    self.place.enter(v1::Phase::Unspecified);
                    self.inbox.wait_for_grant(replica.position.completed);
                }
            }
        }
    }

    fn step(
        &self,
        rank_handle: &mut RankHandle,
        replica: &mut Replica,
        loader: &mut Loader,
        lrs: &[f64; 6],
        (local, global): (u32, u32),
    ) -> Result<v1::StepReport, v1::Failure> {
        let started = Instant::now();
        self.place.enter(v1::Phase::DataWait);
        let batch = loader
            .next()
            .ok_or_else(|| internal("the batch loader ended before the epoch"))?
            .map_err(internal)?;
        let data_wait = started.elapsed().as_secs_f64();
        let moves = !self.frozen && local > 0;
        let mode = if moves {
            Statistics::Batch
        } else {
            Statistics::Running
        };
        let scale = match local {
            // A rank without samples takes part with a borrowed one that weighs nothing.
            0 => 0.0,
            _ => f64::from(rank_handle.world_size) / f64::from(global),
        };
        let computing = Instant::now();
        self.place.enter(v1::Phase::Forward);
        replica.begin_step(moves);
        replica.optimizer.zero_grad().map_err(internal)?;
        rank_handle.prepare_for_forward()?;
        let loss = replica
            .logits(&batch.images, mode)?
            .cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::Sum, -100, 0.0);
        self.place.enter(v1::Phase::Backward);
        let mean_loss = rank_handle.backward(&(&loss * scale))?;
        let backward_done = computing.elapsed().as_secs_f64();
        let waited = rank_handle.allreduce_wait()?;
        let optimizing = Instant::now();
        self.place.enter(v1::Phase::Optimizer);
        replica.optimizer.step(lrs).map_err(internal)?;
        replica.end_step(mean_loss, global);
        Ok(v1::StepReport {
            generation: self.plan.generation,
            epoch: self.plan.epoch,
            completed: replica.position.completed,
            loss_sum: mean_loss * f64::from(local),
            samples: local,
            seconds: started.elapsed().as_secs_f64(),
            phases: Some(v1::PhaseSeconds {
                data_wait,
                forward_backward: (backward_done - waited).max(0.0),
                allreduce_wait: waited,
                optimizer: optimizing.elapsed().as_secs_f64(),
                validation: 0.0,
            }),
        })
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

    fn lrs(&self) -> Result<[f64; 6], v1::Failure> {
        let mut lrs = [0.0; 6];
        for (rate, group) in lrs.iter_mut().zip(LayerGroup::ALL) {
            *rate = self
                .plan
                .lrs
                .iter()
                .find(|entry| entry.group == group.as_str())
                .ok_or_else(|| internal(format!("no learning rate for {}", group.as_str())))?
                .lr;
        }
        Ok(lrs)
    }
}

fn add(sum: &mut v1::PhaseSeconds, step: &v1::PhaseSeconds) {
    sum.data_wait += step.data_wait;
    sum.forward_backward += step.forward_backward;
    sum.allreduce_wait += step.allreduce_wait;
    sum.optimizer += step.optimizer;
}

/// Hands the state over for the run directory.
pub(super) fn checkpoint(replica: &Replica, link: &Link) -> Result<(), v1::Failure> {
    link.send(Outgoing::Upload {
        label: v1::BlobHeader {
            kind: v1::BlobKind::Checkpoint.into(),
            epoch: replica.position.epoch,
            completed: replica.position.completed,
            ..Default::default()
        },
        bytes: replica.to_checkpoint()?,
    });
    Ok(())
}
