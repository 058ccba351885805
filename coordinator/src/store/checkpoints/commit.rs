//! A checkpoint on its way to the disk.
//!
//! The order, after which each line is durable before the next begins:
//!
//! ```text
//! .partial-X/state.safetensors     written, synced, renamed within
//! .partial-X/manifest.json         the same, with the checksum of the state
//! epoch-E-step-S → .replaced-…     only if there is one already
//! .partial-X → epoch-E-step-S      now it counts
//! latest                           names it
//! .replaced-…, older checkpoints   removed
//! ```

use std::io::{self, Write};
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

use super::{Checkpoints, Position, STATE, manifest};
use crate::store::{Blob, StoreError, atomic};

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

/// A checkpoint in its temporary directory. Dropped before it has its name, it leaves nothing
/// behind.
#[derive(Debug)]
pub(super) struct Partial {
    checkpoints: Checkpoints,
    position: Position,
    // Before the directory that it lies in: fields are dropped in this order.
    pub(super) state: NamedTempFile,
    pub(super) directory: TempDir,
}

impl Checkpoints {
    /// Makes `state` the checkpoint at `position`, durably. One that was there before stays
    /// valid until then. Gives back why an older one could not be removed, which costs space and
    /// nothing else.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the file system refuses, for example because it is full. The
    /// checkpoints are then as before, unless `latest` alone could not be written: the new one
    /// then counts nevertheless.
    pub fn commit(
        &self,
        position: Position,
        state: &Blob,
    ) -> Result<Option<StoreError>, StoreError> {
        let mut partial = Partial::begin(self.clone(), position)?;
        partial.write(state)?;
        partial.commit_by_stages(state, &mut |_| Ok(()))
    }
}

impl Partial {
    pub(super) fn begin(checkpoints: Checkpoints, position: Position) -> Result<Self, StoreError> {
        let folder = &checkpoints.folder;
        let directory = std::fs::create_dir_all(folder)
            .and_then(|()| atomic::temporary_directory(folder))
            .map_err(StoreError::write(folder))?;
        let state = atomic::temporary(&directory.path().join(STATE));
        Ok(Self {
            state: state.map_err(StoreError::write(&checkpoints.state_path(position)))?,
            checkpoints,
            position,
            directory,
        })
    }

    pub(super) fn write(&mut self, state: &Blob) -> Result<(), StoreError> {
        let written = self.state.write_all(state.bytes());
        written.map_err(StoreError::write(
            &self.checkpoints.state_path(self.position),
        ))
    }

    /// Commits, and ends at once when `reached` fails for a stage.
    pub(super) fn commit_by_stages(
        self,
        of: &Blob,
        reached: &mut dyn FnMut(Stage) -> io::Result<()>,
    ) -> Result<Option<StoreError>, StoreError> {
        let Self {
            checkpoints,
            position,
            state,
            directory,
        } = self;
        let path = checkpoints.path(position);
        let mut reached = |stage| reached(stage).map_err(StoreError::write(&path));

        keep(state, directory.path())
            .map_err(StoreError::write(&checkpoints.state_path(position)))?;
        reached(Stage::State)?;
        manifest::write(directory.path(), position, of).map_err(StoreError::write(&path))?;
        reached(Stage::Manifest)?;
        if checkpoints
            .set_aside(position)
            .map_err(StoreError::write(&path))?
        {
            reached(Stage::SetAside)?;
        }
        if let Err(error) = std::fs::rename(directory.path(), &path) {
            checkpoints.put_back()?;
            return Err(StoreError::write(&path)(error));
        }
        // Nothing is left under its former name.
        let _ = directory.keep();
        reached(Stage::Renamed)?;
        atomic::sync(&checkpoints.folder).map_err(StoreError::write(&path))?;
        reached(Stage::Durable)?;
        checkpoints.point_to(Some(position))?;
        reached(Stage::Pointer)?;
        let pruned = checkpoints.put_back().and_then(|()| checkpoints.prune());
        Ok(pruned.err())
    }
}

fn keep(state: NamedTempFile, directory: &Path) -> io::Result<()> {
    atomic::replace(state, &directory.join(STATE))
}
