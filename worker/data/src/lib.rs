//! Images from the folder of classes to normalised batches: scan, decode once, keep as
//! bytes, and gather: ahead of the training thread, or on the device.
//!
//! This crate must not know what an epoch, a split or a rank is: its callers pass indices into
//! the manifest.

pub mod batches;
pub mod cache;
pub mod decode;
pub mod demo;
pub mod loader;

mod error;
mod memory;
mod normalise;
mod resident;

pub use batches::{Batch, Batches};
pub use cache::{BadFile, Cache};
pub use common::manifest::{FileEntry, Manifest};
pub use error::DataError;
pub use loader::Loader;
pub use memory::{available_memory, bytes_needed, fits_in_memory};
pub use normalise::Normaliser;
pub use resident::{Gather, Resident};
