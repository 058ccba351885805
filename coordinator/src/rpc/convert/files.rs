//! What workers upload, as the driver takes it.

use coordinator_core::event::Position;
use prost::Message;
use proto::v1;
use tonic::Status;

use crate::observe::{Prediction, Predictions};
use crate::runtime::input::Upload;
use crate::store::Blob;

/// A verified file, which holds `permit` until it is written.
///
/// # Errors
/// `INVALID_ARGUMENT` for one that is not kept in the run directory.
pub fn upload(
    header: &v1::BlobHeader,
    bytes: Vec<u8>,
    permit: impl Send + Sync + 'static,
) -> Result<Upload, Status> {
    let sha256 = header.sha256.as_slice().try_into();
    let sha256 = sha256.map_err(|_| Status::invalid_argument("the sha256 has not 32 bytes"))?;
    let blob = Blob::proven(bytes, sha256).holding(permit);
    match header.kind() {
        v1::BlobKind::BestState => Ok(Upload::Best {
            epoch: header.epoch,
            weights: blob,
        }),
        v1::BlobKind::Checkpoint => Ok(Upload::Checkpoint {
            position: Position {
                epoch: header.epoch,
                completed: header.completed,
            },
            state: blob,
        }),
        kind => Err(Status::invalid_argument(format!(
            "{kind:?} is not uploaded"
        ))),
    }
}

/// Predictions, decoded.
///
/// # Errors
/// `INVALID_ARGUMENT` for bytes that are none.
pub fn predictions(bytes: &[u8]) -> Result<Upload, Status> {
    let decoded = v1::Predictions::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("these are no predictions: {error}")))?;
    let prediction = |prediction: v1::Prediction| Prediction {
        sample: prediction.sample,
        predicted: prediction.predicted,
        probability: prediction.probability,
        pixels: prediction.pixels,
    };
    Ok(Upload::Predictions(Predictions {
        image_size: decoded.image_size,
        predictions: decoded.predictions.into_iter().map(prediction).collect(),
    }))
}
