//! Which checkpoint a run can go on from, and why not from a newer one.

use std::fmt;
use std::path::PathBuf;

use super::{Checkpoints, Flaw, LATEST, Position, manifest, position};
use crate::store::{StoreError, atomic};

/// A checkpoint whose bytes are proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidCheckpoint {
    /// Where in the run it stands.
    pub position: Position,
    /// Bytes of its state.
    pub bytes: u64,
    /// The SHA-256 of its state.
    pub sha256: [u8; 32],
    /// Its directory.
    pub path: PathBuf,
}

/// A checkpoint that cannot be used. Displayed, it is one line for the user.
#[derive(Debug)]
pub struct CorruptCheckpoint {
    /// Its name, or what the pointer says instead of one.
    pub name: String,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// The one that is used in its place.
    pub used: Option<Position>,
}

/// The newest whole checkpoint, and everything that is wrong with those that should have come
/// before it.
#[derive(Debug, Default)]
pub struct Newest {
    /// `None` when there is no whole one.
    pub checkpoint: Option<ValidCheckpoint>,
    /// Newest first.
    pub corrupt: Vec<CorruptCheckpoint>,
}

impl fmt::Display for CorruptCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, flaw, used } = self;
        match flaw {
            Flaw::Missing | Flaw::NoName => write!(f, "the file {LATEST} names {name:?}: {flaw}")?,
            _ => write!(f, "checkpoint {name} is corrupt: {flaw}")?,
        }
        match used {
            Some(used) => write!(f, "; {} is used instead", position::name(*used)),
            None => write!(f, "; there is no whole one"),
        }
    }
}

impl Checkpoints {
    /// Finds the newest checkpoint that is whole, reading all of its state, and removes what
    /// a crash left half done. No upload may be under way.
    ///
    /// A whole checkpoint that is newer than the one the pointer names counts: a crash came
    /// between its last rename and the pointer's, when all of it was on the disk.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`] for the folder itself. A checkpoint that
    /// cannot be read is no error but one of [`Newest::corrupt`].
    pub fn newest(&self) -> Result<Newest, StoreError> {
        let there = self.folder.try_exists();
        if !there.map_err(StoreError::read(&self.folder))? {
            return Ok(Newest::default());
        }
        atomic::sweep(&self.folder).map_err(StoreError::write(&self.folder))?;
        self.put_back()?;
        let positions = self.positions()?;
        let mut corrupt = Vec::new();
        let mut refuse = |name: String, flaw| {
            corrupt.push(CorruptCheckpoint {
                name,
                flaw,
                used: None,
            });
        };
        if let Some(name) = self.latest()? {
            match position::parse(&name) {
                None => refuse(name, Flaw::NoName),
                Some(position) if !positions.contains(&position) => refuse(name, Flaw::Missing),
                Some(_) => {}
            }
        }
        let mut checkpoint = None;
        for position in positions {
            let path = self.path(position);
            match manifest::prove(&path, position) {
                Ok(state) => {
                    checkpoint = Some(ValidCheckpoint {
                        position,
                        bytes: state.bytes,
                        sha256: state.sha256,
                        path,
                    });
                    break;
                }
                Err(flaw) => refuse(position::name(position), flaw),
            }
        }
        let used = checkpoint.as_ref().map(|whole| whole.position);
        corrupt.iter_mut().for_each(|corrupt| corrupt.used = used);
        Ok(Newest {
            checkpoint,
            corrupt,
        })
    }
}
