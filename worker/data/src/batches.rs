//! Batches, wherever the images are.

use tch::Tensor;

use super::{DataError, Gather, Loader};

/// One batch, on the device that it was asked for.
#[derive(Debug)]
pub struct Batch {
    /// Normalised `[B, 3, S, S]`, channels_last. B may be 0.
    pub images: Tensor,
    /// Class of each image: int64 `[B]`.
    pub labels: Tensor,
}

impl Batch {
    /// Another handle to the same tensors.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            images: self.images.shallow_clone(),
            labels: self.labels.shallow_clone(),
        }
    }
}

/// The batches of an epoch, in order.
#[derive(Debug)]
pub enum Batches {
    /// From the memory of the CPU, ahead of time.
    Loaded(Loader),
    /// From the memory of the device, when they are asked for.
    Resident(Gather),
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Loaded(loader) => loader.next(),
            Self::Resident(gather) => gather.next(),
        }
    }
}
