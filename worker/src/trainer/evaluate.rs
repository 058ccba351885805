//! The validation of this rank's chunks: exact sums, no padding, no collective.

use std::sync::Arc;

use proto::v1;
use tch::{Kind, Reduction, Tensor};

use super::device::Compute;
use super::failure::internal;
use super::replica::Replica;
use crate::agent::activity::ActivityTracker;
use crate::control::Inbox;
use crate::data::{Cache, Loader};
use crate::model::Statistics;

/// Σ loss, correct answers and samples of each chunk; `None` when it was called off meanwhile.
pub(super) fn chunks(
    replica: &Replica,
    cache: &Cache,
    labels: &Arc<[u32]>,
    chunks: &[v1::ValidationChunk],
    compute: &Compute,
    (inbox, place): (&Inbox, &ActivityTracker),
) -> Result<Option<Vec<v1::ValidationSum>>, v1::Failure> {
    let batches = chunks.iter().map(|chunk| chunk.samples.clone()).collect();
    let mut loader = Loader::new(
        cache.share(),
        labels.clone(),
        batches,
        compute.device,
        replica.image_kind(),
    )
    .map_err(internal)?;
    let mut sums = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if inbox.is_called_off() {
            return Ok(None);
        }
        place.enter(v1::Phase::Validation);
        let batch = loader
            .next()
            .ok_or_else(|| internal("the batch loader ended before the chunks"))?
            .map_err(internal)?;
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
        sums.push(v1::ValidationSum {
            chunk: chunk.chunk,
            loss_sum,
            correct: correct as u32,
            samples: chunk.samples.len() as u32,
        });
    }
    Ok(Some(sums))
}
