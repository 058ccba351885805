//! Images from the folder of classes to normalised batches: scan, decode once, keep as
//! bytes, gather ahead of the training thread.
//!
//! This crate must not know what an epoch, a split or a rank is: its callers pass indices into
//! the manifest.

pub mod cache;
pub mod decode;
pub mod demo;
pub mod loader;

mod error;
mod memory;
mod normalise;

pub use cache::{BadFile, Cache};
pub use common::manifest::{FileEntry, Manifest};
pub use error::DataError;
pub use loader::{Batch, Loader};
pub use memory::{available_memory, bytes_needed, fits_in_memory};
pub use normalise::Normaliser;
