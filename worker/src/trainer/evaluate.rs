//! The validation of this rank's chunks: exact sums, no padding, no collective.

use std::sync::Arc;
use std::time::Instant;

use c10d::HostCopy;
use tch::{Kind, Reduction, Tensor};
use worker_control::{Activity, Done, EpochPlan, TrainError, ValidationSum};

use super::Worker;
use super::epoch::EpochRun;
use super::failure::{device, internal};
use super::replica::Replica;
use crate::model::Statistics;

/// A chunk that the device may still work on.
pub(super) struct BegunChunk {
    /// Σ loss and correct answers: float64 `[2]`.
    sums: HostCopy,
    chunk: u32,
    samples: u32,
}

impl Worker<'_> {
    pub(super) fn average_batch_norm(&mut self) -> Result<(), TrainError> {
        self.activity.enter(Activity::Validation);
        match (&self.rank, self.control.state_mut()) {
            (Some(rank), Some(replica)) => match rank.group() {
                Some(group) => replica.average_batch_norm(group),
                None => Ok(()),
            },
            _ => Err(internal("an epoch without a group or a state")),
        }
    }

    /// Begins one chunk.
    pub(super) fn validate(
        &mut self,
        plan: &Arc<EpochPlan>,
        index: usize,
    ) -> Result<Done<Replica>, TrainError> {
        let started = Instant::now();
        self.activity.enter(Activity::Validation);
        self.begin_epoch(plan)?;
        if index == 0 {
            let chunks = plan.validation.iter();
            let batches = self.batches(chunks.map(|chunk| chunk.samples.clone()).collect())?;
            if let Some(epoch) = &mut self.epoch {
                epoch.validation = Some(batches);
            }
        }
        let (Some(epoch), Some(replica)) = (&mut self.epoch, self.control.state()) else {
            return Err(internal("a chunk without an epoch or a state"));
        };
        let batch = (epoch.validation.as_mut())
            .and_then(Iterator::next)
            .ok_or_else(|| internal("the batch loader ended before the chunks"))?
            .map_err(internal)?;
        let chunk = &plan.validation[index];
        let usual = plan.validation.first().map(|first| first.samples.len());
        self.compute.tune(usual == Some(chunk.samples.len()));
        let sums = tch::no_grad(|| {
            let logits = replica.logits(&batch.images, Statistics::Running)?;
            let loss = logits
                .cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::None, -100, 0.0)
                .sum(Kind::Double);
            let correct = logits
                .argmax(1, false)
                .eq_tensor(&batch.labels)
                .sum(Kind::Double);
            HostCopy::begin(&Tensor::stack(&[loss, correct], 0)).map_err(device)
        })?;
        epoch.chunks.push(BegunChunk {
            sums,
            chunk: chunk.chunk,
            samples: chunk.samples.len() as u32,
        });
        let sums = match self.compute.gpu() {
            Some(_) => Vec::new(),
            None => epoch.sums()?,
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Done::Validated { sums, seconds })
    }
}

impl EpochRun {
    /// Waits for the sums of the chunks that have begun.
    pub(super) fn sums(&mut self) -> Result<Vec<ValidationSum>, TrainError> {
        let sum = |begun: BegunChunk| {
            let sums = begun.sums.wait().map_err(device)?;
            Ok(ValidationSum {
                chunk: begun.chunk,
                loss_sum: sums.double_value(&[0]),
                correct: sums.double_value(&[1]) as u32,
                samples: begun.samples,
            })
        };
        self.chunks.drain(..).map(sum).collect()
    }
}
