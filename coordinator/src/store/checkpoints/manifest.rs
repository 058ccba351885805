//! The manifest of a checkpoint, and whether the checkpoint is what the manifest says.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{MANIFEST, Position, STATE};
use crate::store::{Blob, atomic};

/// The version of the format that this program writes and reads.
const VERSION: u32 = 1;
/// A manifest has some 150 bytes. What is longer than this is none, and is not read.
const LONGEST: u64 = 4096;
/// Bytes of the state that are summed at once.
const PIECE: usize = 1 << 20;

/// A checkpoint's state, open for reading from its beginning.
#[derive(Debug)]
pub(super) struct State {
    file: File,
    /// Its length.
    pub(super) bytes: u64,
    /// The SHA-256 that its bytes must have.
    pub(super) sha256: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    epoch: u32,
    completed: u32,
    bytes: u64,
    sha256: String,
}

/// What is wrong with a checkpoint, in words that follow its name.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The pointer names a checkpoint that is not there.
    #[error("there is none of that name")]
    Missing,
    /// The pointer names no checkpoint at all.
    #[error("that is no checkpoint's name")]
    NoName,
    /// It belongs to a later epoch than the one after the last on record.
    #[error("metrics.jsonl has records of {epochs} epochs only")]
    Ahead {
        /// Epochs on record.
        epochs: u32,
    },
    /// One of its two files is not there.
    #[error("{file} is missing")]
    NoFile {
        /// Which.
        file: &'static str,
    },
    /// One of its files cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        /// Which.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The manifest is not what this program writes.
    #[error("manifest.json is damaged: {what}")]
    Manifest {
        /// What is wrong with it.
        what: String,
    },
    /// Another version of this program wrote it.
    #[error("manifest.json has version {version}, and this program reads version {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// The manifest is that of another checkpoint.
    #[error("manifest.json is that of {}", super::position::name(*position))]
    Elsewhere {
        /// Which.
        position: Position,
    },
    /// The state was cut short, or has grown.
    #[error("state.safetensors has {actual} of {expected} bytes")]
    Length {
        /// On the disk.
        actual: u64,
        /// In the manifest.
        expected: u64,
    },
    /// The state has the right length, but other bytes.
    #[error("the sha256 of state.safetensors is {actual}, not {expected}")]
    Checksum {
        /// Of the bytes on the disk.
        actual: String,
        /// In the manifest.
        expected: String,
    },
}

/// Writes the manifest of a state into `directory`, durably.
pub(super) fn write(directory: &Path, position: Position, of: &Blob) -> io::Result<()> {
    let manifest = Manifest {
        version: VERSION,
        epoch: position.epoch,
        completed: position.completed,
        bytes: of.bytes().len() as u64,
        sha256: HEXLOWER.encode(of.sha256()),
    };
    let text = serde_json::to_vec(&manifest)?;
    atomic::write(&directory.join(MANIFEST), |file| {
        file.write_all(&text)?;
        file.write_all(b"\n")
    })
}

/// Opens the state of the checkpoint in `directory`, if its manifest is in order and the state
/// has the right length. Its bytes are not looked at.
pub(super) fn open(directory: &Path, position: Position) -> Result<State, Flaw> {
    let mut text = Vec::new();
    open_file(directory, MANIFEST)?
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(unreadable(MANIFEST))?;
    let damaged = |what: &dyn ToString| Flaw::Manifest {
        what: what.to_string(),
    };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    if manifest.version != VERSION {
        return Err(Flaw::Version {
            version: manifest.version,
        });
    }
    let sha256 = HEXLOWER.decode(manifest.sha256.as_bytes());
    let sha256 = sha256.ok().and_then(|sum| sum.try_into().ok());
    let sha256 = sha256.ok_or_else(|| damaged(&"sha256 is no sha256"))?;
    let stated = Position {
        epoch: manifest.epoch,
        completed: manifest.completed,
    };
    if stated != position {
        return Err(Flaw::Elsewhere { position: stated });
    }
    let file = open_file(directory, STATE)?;
    let actual = file.metadata().map_err(unreadable(STATE))?.len();
    if actual != manifest.bytes {
        return Err(Flaw::Length {
            actual,
            expected: manifest.bytes,
        });
    }
    Ok(State {
        file,
        bytes: actual,
        sha256,
    })
}

/// Like [`open`], and reads all of the state to prove its sum.
pub(super) fn prove(directory: &Path, position: Position) -> Result<State, Flaw> {
    let state = open(directory, position)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match (&state.file).read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => sum.update(&piece[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(STATE)(error)),
        }
    }
    let sum = sum.finalize();
    if sum.as_slice() != state.sha256 {
        return Err(Flaw::Checksum {
            actual: HEXLOWER.encode(&sum),
            expected: HEXLOWER.encode(&state.sha256),
        });
    }
    Ok(state)
}

fn open_file(directory: &Path, file: &'static str) -> Result<File, Flaw> {
    File::open(directory.join(file)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Flaw::NoFile { file },
        _ => unreadable(file)(error),
    })
}

fn unreadable(file: &'static str) -> impl FnOnce(io::Error) -> Flaw {
    move |source| Flaw::Unreadable { file, source }
}
