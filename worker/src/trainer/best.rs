//! The file that the copy of the best weights becomes.

use std::collections::BTreeMap;

use worker_control::{Best, TrainError};

use super::failure::internal;
use super::link::Unwritten;
use super::snapshot::Snapshot;
use crate::model::{ResNet18, weights};

/// A `.safetensors` file under torchvision's names, with metadata that describes it.
pub(super) fn to_file(
    best: &Best<Snapshot>,
    classes: &[String],
    image_size: u32,
) -> Result<Unwritten, TrainError> {
    let names = serde_json::to_string(classes).map_err(internal)?;
    let metadata = BTreeMap::from([
        ("classes".to_owned(), names),
        ("epoch".to_owned(), best.epoch.to_string()),
        (
            "validation_loss".to_owned(),
            best.validation_loss.to_string(),
        ),
        ("image_size".to_owned(), image_size.to_string()),
    ]);
    let weights = best.weights.tensors()?;
    Ok(Unwritten::new(move || {
        weights::to_safetensors(&weights, &metadata).map_err(internal)
    }))
}

/// Loads such a file.
pub(super) fn load(model: &mut ResNet18, file: &[u8]) -> Result<(), TrainError> {
    let entries = weights::parse(file)
        .map_err(|error| internal(format!("the best weights cannot be read: {error}")))?;
    model.load(entries).map(drop).map_err(internal)
}
