//! Checkpoints: the state of a run at a position, durable. One directory each under
//! `RUN_DIR/checkpoints`, named by its [`Position`], with the state (opaque bytes) and a manifest
//! with its length and checksum; and the file `latest`, which names the last one.
//!
//! A checkpoint is written in a temporary directory and gets its name when all of it is on the
//! disk; then the pointer moves; then older ones are removed. So a crash at any moment leaves a
//! valid one. This module never decides when a checkpoint is due or which one a run continues from.

mod commit;
mod folder;
mod manifest;
mod newest;
mod position;

use std::path::{Path, PathBuf};

pub use manifest::Flaw;
pub use newest::{CorruptCheckpoint, Newest};

use coordinator_core::event::Position;

use super::{StoreError, atomic};

/// The folder of the checkpoints in the run directory.
pub const CHECKPOINTS: &str = "checkpoints";
/// The state within a checkpoint.
pub const STATE: &str = "state.safetensors";
/// What proves a checkpoint valid.
pub const MANIFEST: &str = "manifest.json";
/// Names the checkpoint that was committed last.
pub const LATEST: &str = "latest";
/// Checkpoints that are kept when a new one is committed.
pub const KEEP: usize = 2;

/// The checkpoints of a run. Cheap to clone; only the recorder changes them.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints of the run in `run_dir`. Touches nothing: the folder comes with the first
    /// checkpoint.
    #[must_use]
    pub fn open(run_dir: &Path) -> Self {
        Self {
            folder: run_dir.join(CHECKPOINTS),
        }
    }

    /// Removes the checkpoints after `position`, of a run that rolled back to it; returns which.
    ///
    /// # Errors
    /// [`StoreError::Write`] naming what could not be removed.
    pub fn discard_after(&self, position: Position) -> Result<Vec<Position>, StoreError> {
        let (later, rest): (Vec<_>, Vec<_>) =
            self.positions()?.into_iter().partition(|at| *at > position);
        // The pointer first: it never names what is gone.
        let names_the_rest = match self.latest()? {
            None => true,
            Some(name) => rest.iter().any(|at| position::name(*at) == name),
        };
        if !names_the_rest {
            self.point_to(rest.first().copied())?;
        }
        for at in &later {
            self.remove(*at)?;
        }
        if !later.is_empty() {
            atomic::sync(&self.folder).map_err(StoreError::write(&self.folder))?;
        }
        Ok(later)
    }

    /// The path of a checkpoint's state, whether it exists or not.
    #[must_use]
    pub fn state_path(&self, position: Position) -> PathBuf {
        self.path(position).join(STATE)
    }

    fn path(&self, position: Position) -> PathBuf {
        self.folder.join(position::name(position))
    }
}

#[cfg(test)]
mod tests;
