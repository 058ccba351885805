//! The copy of the best weights, and the file that it becomes.

use std::collections::BTreeMap;

use tch::{Device, Tensor};
use worker_control::{Best, TrainError};

use super::failure::internal;
use super::replica::Replica;
use crate::model::{ResNet18, weights};

/// Weights in the memory of the CPU, under torchvision's names.
pub(super) type Weights = Vec<(String, Tensor)>;

/// Copies what `replica` holds.
pub(super) fn copy(replica: &Replica) -> Weights {
    let copy =
        |(name, tensor): (String, Tensor)| (name, tensor.to_device(Device::Cpu).detach().copy());
    replica.model.state().into_iter().map(copy).collect()
}

/// A `.safetensors` file under torchvision's names, with metadata that describes it.
pub(super) fn to_file(
    best: &Best<Weights>,
    classes: &[String],
    image_size: u32,
) -> Result<Vec<u8>, TrainError> {
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
    weights::to_safetensors(&best.weights, &metadata).map_err(internal)
}

/// Loads such a file.
pub(super) fn load(model: &mut ResNet18, file: &[u8]) -> Result<(), TrainError> {
    let entries = weights::parse(file)
        .map_err(|error| internal(format!("the best weights cannot be read: {error}")))?;
    model.load(entries).map(drop).map_err(internal)
}
