//! Predictions of a few images by the best weights.

use tch::Kind;
use worker_control::TrainError;

use super::device::Compute;
use super::failure::internal;
use super::link::{Prediction, Predictions};
use super::replica::Replica;
use crate::model::Statistics;
use worker_data::{Cache, Normaliser};

/// Predictions of `samples`.
pub(super) fn predict(
    replica: &Replica,
    cache: &Cache,
    samples: &[u32],
    compute: &Compute,
) -> Result<Predictions, TrainError> {
    let pixels = cache.batch(samples).map_err(internal)?;
    let normaliser = Normaliser::new(cache.size(), compute.device, Kind::Float);
    let images = normaliser.map_err(internal)?.apply(&pixels);
    let images = images.map_err(internal)?;
    let logits = tch::no_grad(|| replica.logits(&images, Statistics::Running))?;
    let (values, classes) = logits.softmax(-1, Kind::Float).max_dim(1, false);
    let size = pixels.size().get(1).copied().unwrap_or_default();
    let mut predictions = Vec::with_capacity(samples.len());
    for (&sample, place) in samples.iter().zip(0..) {
        let tile = pixels.get(place).reshape([-1]);
        predictions.push(Prediction {
            sample,
            class: classes.int64_value(&[place]) as u32,
            probability: values.double_value(&[place]) as f32,
            pixels: Vec::<u8>::try_from(&tile).map_err(internal)?,
        });
    }
    Ok(Predictions {
        image_size: size as u32,
        predictions,
    })
}
