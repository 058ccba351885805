//! The validation of this rank's chunks: exact sums, no padding, no collective.

use std::sync::Arc;
use std::time::Instant;

use c10d::HostCopy;
use tch::{Kind, Reduction, TchError, Tensor};
use worker_control::{Activity, Done, EpochPlan, TrainError, ValidationChunk, ValidationSum};

use super::Worker;
use super::epoch::EpochRun;
use super::failure::{device, internal};
use super::replica::Replica;
use crate::model::Statistics;

/// Chunks of 64 images of 224 px, and so many pixels, that a GPU evaluates at once: one alone does
/// not occupy it. A CPU is no quicker for it.
const ON_A_GPU: usize = 4;

/// Chunks that the device may still work on.
pub(super) struct BegunChunks {
    /// Of each, Σ loss and correct answers: float64 `[N, 2]`.
    sums: HostCopy,
    /// The place in the validation set, and the samples, of each.
    chunks: Vec<(u32, u32)>,
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

    /// Begins a chunk, with those that are evaluated at once with it, if it is the first of them.
    pub(super) fn validate(
        &mut self,
        plan: &Arc<EpochPlan>,
        index: usize,
    ) -> Result<Done<Replica>, TrainError> {
        let started = Instant::now();
        self.activity.enter(Activity::Validation);
        self.begin_epoch(plan)?;
        let at_once = self.chunks_at_once();
        if index == 0 {
            let samples = |chunks: &[ValidationChunk]| {
                let samples = chunks.iter().flat_map(|chunk| &chunk.samples);
                samples.copied().collect()
            };
            let batches = plan.validation.chunks(at_once).map(samples).collect();
            let batches = self.batches(batches)?;
            if let Some(epoch) = &mut self.epoch {
                epoch.validation = Some(batches);
            }
        }
        let (Some(epoch), Some(replica)) = (&mut self.epoch, self.control.state()) else {
            return Err(internal("a chunk without an epoch or a state"));
        };
        if index.is_multiple_of(at_once) {
            let batch = (epoch.validation.as_mut())
                .and_then(Iterator::next)
                .ok_or_else(|| internal("the batch loader ended before the chunks"))?
                .map_err(internal)?;
            let last = plan.validation.len().min(index + at_once);
            let of_each = |chunk: &ValidationChunk| (chunk.chunk, chunk.samples.len() as u32);
            let chunks: Vec<_> = plan.validation[index..last].iter().map(of_each).collect();
            let first = epoch.chunks.first().map_or(&chunks, |first| &first.chunks);
            let samples = |chunks: &[(u32, u32)]| chunks.iter().map(|(_, n)| n).sum::<u32>();
            self.compute.tune(samples(first) == samples(&chunks));
            let sums = tch::no_grad(|| {
                let logits = replica.logits(&batch.images, Statistics::Running)?;
                let sums = sums(&logits, &batch.labels, &chunks).map_err(internal)?;
                HostCopy::begin(&sums).map_err(device)
            })?;
            epoch.chunks.push(BegunChunks { sums, chunks });
        }
        let sums = match self.compute.gpu() {
            Some(_) => Vec::new(),
            None => epoch.sums()?,
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Done::Validated { sums, seconds })
    }

    fn chunks_at_once(&self) -> usize {
        let pixels = (self.settings.image_size as usize).pow(2).max(1);
        let fit = ON_A_GPU * 224 * 224 / pixels;
        self.compute.gpu().map_or(1, |_| fit.clamp(1, ON_A_GPU))
    }
}

/// Σ loss and correct answers of each chunk, float64 `[N, 2]`, from the logits and labels of all its
/// samples, one chunk after the other.
fn sums(logits: &Tensor, labels: &Tensor, chunks: &[(u32, u32)]) -> Result<Tensor, TchError> {
    let loss = logits.f_cross_entropy_loss::<Tensor>(labels, None, Reduction::None, -100, 0.0)?;
    let correct = logits.f_argmax(1, false)?.f_eq_tensor(labels)?;
    let mut first = 0;
    let of_chunk = |&(_, samples): &(u32, u32)| {
        let (from, samples) = (first, i64::from(samples));
        first += samples;
        let sum = |of: &Tensor| of.f_narrow(0, from, samples)?.f_sum(Kind::Double);
        Tensor::f_stack(&[sum(&loss)?, sum(&correct)?], 0)
    };
    let sums: Result<Vec<_>, _> = chunks.iter().map(of_chunk).collect();
    Tensor::f_stack(&sums?, 0)
}

impl EpochRun {
    /// Waits for the sums of the chunks that have begun.
    pub(super) fn sums(&mut self) -> Result<Vec<ValidationSum>, TrainError> {
        let mut all = Vec::new();
        for begun in self.chunks.drain(..) {
            let sums = begun.sums.wait().map_err(device)?;
            let of_each = |(row, (chunk, samples))| ValidationSum {
                chunk,
                loss_sum: sums.double_value(&[row, 0]),
                correct: sums.double_value(&[row, 1]) as u32,
                samples,
            };
            all.extend((0..).zip(begun.chunks).map(of_each));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn chunks_that_are_evaluated_at_once_have_the_sums_of_each() {
        let logits = (Tensor::arange(60, (Kind::Float, Device::Cpu)) * 7).fmod(11);
        let logits = logits.view([12, 5]);
        let labels = Tensor::arange(12, (Kind::Int64, Device::Cpu)).fmod(5);
        let chunks = [(4, 5), (5, 5), (6, 2)];
        let at_once = sums(&logits, &labels, &chunks).unwrap();
        assert_eq!((at_once.size(), at_once.kind()), (vec![3, 2], Kind::Double));
        let mut first = 0;
        for (row, chunk) in (0..).zip(chunks) {
            let samples = i64::from(chunk.1);
            let part = |of: &Tensor| of.narrow(0, first, samples);
            let alone = sums(&part(&logits), &part(&labels), &[chunk]).unwrap();
            assert_eq!(at_once.get(row), alone.get(0));
            first += samples;
        }
    }
}
