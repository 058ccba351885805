//! A checkpoint on its way to the disk.
//!
//! The order, after which each line is durable before the next begins:
//!
//! ```text
//! .partial-X/state.safetensors     written, synced, renamed within; its sum is proven
//! .partial-X/manifest.json         the same
//! epoch-E-step-S → .replaced-…     only if there is one already
//! .partial-X → epoch-E-step-S      now it counts
//! latest                           names it
//! .replaced-…, older checkpoints   removed
//! ```

use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Checkpoints, Position, STATE, manifest};
use crate::store::{StoreError, Upload, atomic};

/// A checkpoint under way. Dropped without [`CheckpointUpload::commit`], it leaves nothing
/// behind.
#[derive(Debug)]
pub struct CheckpointUpload {
    checkpoints: Checkpoints,
    position: Position,
    bytes: u64,
    // Before the directory that it lies in: fields are dropped in this order.
    pub(super) state: Upload,
    pub(super) partial: TempDir,
}

/// A checkpoint that is on the disk.
#[derive(Debug)]
pub struct Committed {
    /// Its directory.
    pub path: PathBuf,
    /// Why an older checkpoint could not be removed, which costs space and nothing else.
    pub not_pruned: Option<StoreError>,
}

/// The moments of a commit, each after the line of the module's table that it is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    State,
    Manifest,
    SetAside,
    Renamed,
    Durable,
    Pointer,
}

impl CheckpointUpload {
    pub(super) fn begin(
        checkpoints: Checkpoints,
        position: Position,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let folder = &checkpoints.folder;
        let partial = std::fs::create_dir_all(folder)
            .and_then(|()| atomic::temporary_directory(folder))
            .map_err(StoreError::write(folder))?;
        let state = Upload::begin(partial.path().join(STATE))?;
        Ok(Self {
            checkpoints,
            position,
            bytes,
            state,
            partial,
        })
    }

    /// Adds the next piece of the state.
    ///
    /// # Errors
    /// [`StoreError::Length`] when it is more than was announced, [`StoreError::Write`] when the
    /// file system refuses, for example because it is full.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let actual = self.state.bytes() + piece.len() as u64;
        if actual > self.bytes {
            return Err(self.length(actual));
        }
        let written = self.state.write(piece);
        written.map_err(|error| error.told_of(&self.place()))
    }

    /// How many bytes of the state have arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.bytes()
    }

    /// Makes the checkpoint count, if all announced bytes are there and their SHA-256 is
    /// `expected` (32 bytes). One that stood at this position before stays valid until then.
    /// Reads nothing again, but waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Length`] or [`StoreError::Checksum`] when the state is not what was
    /// announced, [`StoreError::Write`] when the file system refuses. The checkpoints are then as
    /// before, unless `latest` alone could not be written: the new one then counts nevertheless.
    pub fn commit(self, expected: &[u8]) -> Result<Committed, StoreError> {
        self.commit_by_stages(expected, &mut |_| Ok(()))
    }

    /// [`CheckpointUpload::commit`], which ends at once when `reached` fails for a stage.
    pub(super) fn commit_by_stages(
        self,
        expected: &[u8],
        reached: &mut dyn FnMut(Stage) -> io::Result<()>,
    ) -> Result<Committed, StoreError> {
        if self.state.bytes() != self.bytes {
            return Err(self.length(self.state.bytes()));
        }
        let place = self.place();
        let Self {
            checkpoints,
            position,
            bytes,
            state,
            partial,
        } = self;
        let path = checkpoints.path(position);
        let mut reached = |stage| reached(stage).map_err(StoreError::write(&path));

        state
            .commit(expected)
            .map_err(|error| error.told_of(&place))?;
        reached(Stage::State)?;
        manifest::write(partial.path(), position, bytes, expected)
            .map_err(StoreError::write(&path))?;
        reached(Stage::Manifest)?;
        if checkpoints
            .set_aside(position)
            .map_err(StoreError::write(&path))?
        {
            reached(Stage::SetAside)?;
        }
        if let Err(error) = std::fs::rename(partial.path(), &path) {
            checkpoints.put_back()?;
            return Err(StoreError::write(&path)(error));
        }
        // Nothing is left under its former name.
        let _ = partial.keep();
        reached(Stage::Renamed)?;
        atomic::sync(&checkpoints.folder).map_err(StoreError::write(&path))?;
        reached(Stage::Durable)?;
        checkpoints.point_to(Some(position))?;
        reached(Stage::Pointer)?;
        let pruned = checkpoints.put_back().and_then(|()| checkpoints.prune());
        Ok(Committed {
            path,
            not_pruned: pruned.err(),
        })
    }

    /// What is to become of the state.
    fn place(&self) -> PathBuf {
        self.checkpoints.path(self.position).join(STATE)
    }

    fn length(&self, actual: u64) -> StoreError {
        StoreError::Length {
            path: self.place(),
            expected: self.bytes,
            actual,
        }
    }
}
