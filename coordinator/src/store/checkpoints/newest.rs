//! The newest checkpoint that a run can continue from, and why it cannot use a newer one.

use std::fmt;

use super::{Checkpoints, Flaw, LATEST, Position, manifest, position};
use crate::store::{StoreError, atomic};

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

/// The newest valid checkpoint, and what is wrong with those that are newer.
#[derive(Debug, Default)]
pub struct Newest {
    /// `None` when there is no valid one.
    pub checkpoint: Option<Position>,
    /// Newest first.
    pub corrupt: Vec<CorruptCheckpoint>,
}

impl fmt::Display for CorruptCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, flaw, used } = self;
        match flaw {
            Flaw::Missing | Flaw::NoName => write!(f, "the file {LATEST} names {name:?}: {flaw}")?,
            Flaw::Ahead { .. } => write!(f, "checkpoint {name} cannot be used: {flaw}")?,
            _ => write!(f, "checkpoint {name} is corrupt: {flaw}")?,
        }
        match used {
            Some(used) => write!(f, "; {} is used instead", position::name(*used)),
            None => write!(f, "; there is no valid one"),
        }
    }
}

impl Checkpoints {
    /// Finds the newest valid checkpoint, reading all of its state, and removes what a crash left
    /// unfinished. Nothing may be writing meanwhile.
    ///
    /// A valid checkpoint that is newer than the one the pointer names counts: a crash came
    /// between its last rename and the pointer's, when all of it was on the disk. One that is
    /// ahead of the `epochs` on record does not: the run has no result of the epoch in between.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Write`] for the folder itself. A checkpoint that
    /// cannot be read is no error but one of [`Newest::corrupt`].
    pub fn newest(&self, epochs: u32) -> Result<Newest, StoreError> {
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
            let verified = match position.epoch > epochs + 1 {
                true => Err(Flaw::Ahead { epochs }),
                false => manifest::verify(&self.path(position), position),
            };
            match verified {
                Ok(()) => {
                    checkpoint = Some(position);
                    break;
                }
                Err(flaw) => refuse(position::name(position), flaw),
            }
        }
        corrupt
            .iter_mut()
            .for_each(|corrupt| corrupt.used = checkpoint);
        Ok(Newest {
            checkpoint,
            corrupt,
        })
    }
}
