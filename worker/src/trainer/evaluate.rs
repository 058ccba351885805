//! The validation of this rank's chunks: exact sums, no padding, no collective.

use std::sync::Arc;
use std::time::Instant;

use tch::{Kind, Reduction, Tensor};
use worker_control::{Activity, Done, EpochPlan, TrainError, ValidationSum};

use super::Worker;
use super::failure::internal;
use super::replica::Replica;
use crate::model::Statistics;

impl Worker<'_> {
    pub(super) fn average_batch_norm(&mut self) -> Result<(), TrainError> {
        self.activity.enter(Activity::Validation);
        match (&self.rank, self.control.state_mut()) {
            (Some(rank), Some(replica)) => replica.average_batch_norm(&rank.group),
            _ => Err(internal("an epoch without a group or a state")),
        }
    }

    /// Σ loss, correct answers and samples of one chunk.
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
            let loader = self.loader(chunks.map(|chunk| chunk.samples.clone()).collect())?;
            if let Some(epoch) = &mut self.epoch {
                epoch.validation = Some(loader);
            }
        }
        let loader = self.epoch.as_mut().and_then(|run| run.validation.as_mut());
        let batch = loader
            .and_then(Iterator::next)
            .ok_or_else(|| internal("the batch loader ended before the chunks"))?
            .map_err(internal)?;
        let replica = self.state()?;
        let (loss_sum, correct) = tch::no_grad(|| {
            let logits = replica.logits(&batch.images, Statistics::Running)?;
            let losses = logits
                .cross_entropy_loss::<Tensor>(&batch.labels, None, Reduction::None, -100, 0.0)
                .sum(Kind::Double);
            let correct = logits
                .argmax(1, false)
                .eq_tensor(&batch.labels)
                .sum(Kind::Int64);
            Ok((losses.double_value(&[]), correct.int64_value(&[])))
        })?;
        let chunk = &plan.validation[index];
        let sum = ValidationSum {
            chunk: chunk.chunk,
            loss_sum,
            correct: correct as u32,
            samples: chunk.samples.len() as u32,
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Done::Validated { sum, seconds })
    }
}
