//! A copy of the best weights, until the run directory has them, and as a file for it.

use std::collections::BTreeMap;

use proto::v1;
use tch::{Device, Tensor};

use super::failure::internal;
use super::replica::Replica;
use crate::model::{ResNet18, weights};

/// The weights after the best epoch so far.
pub(super) struct Best {
    pub(super) epoch: u32,
    validation_loss: f64,
    state: Vec<(String, Tensor)>,
}

impl Best {
    /// Copies what `replica` holds when it is judged.
    pub(super) fn of(replica: &Replica, epoch_result: &v1::EpochResult) -> Self {
        let copy = |(name, tensor): (String, Tensor)| {
            (name, tensor.to_device(Device::Cpu).detach().copy())
        };
        Self {
            epoch: epoch_result.epoch,
            validation_loss: epoch_result.validation_loss,
            state: replica.model.state().into_iter().map(copy).collect(),
        }
    }

    /// A `.safetensors` file under torchvision's names, which says of itself what it is.
    pub(super) fn to_file(
        &self,
        classes: &[String],
        image_size: u32,
    ) -> Result<Vec<u8>, v1::Failure> {
        let names = serde_json::to_string(classes).map_err(internal)?;
        let metadata = BTreeMap::from([
            ("classes".to_owned(), names),
            ("epoch".to_owned(), self.epoch.to_string()),
            (
                "validation_loss".to_owned(),
                self.validation_loss.to_string(),
            ),
            ("image_size".to_owned(), image_size.to_string()),
        ]);
        weights::to_safetensors(&self.state, &metadata).map_err(internal)
    }
}

/// Loads such a file.
pub(super) fn load(model: &mut ResNet18, file: &[u8]) -> Result<(), v1::Failure> {
    let entries = weights::parse(file)
        .map_err(|error| internal(format!("the best weights cannot be read: {error}")))?;
    model.load(entries).map(drop).map_err(internal)
}
