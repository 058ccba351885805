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
/// has the right length; also gives the SHA-256 that its bytes must have, which are not read.
pub(super) fn open(directory: &Path, position: Position) -> Result<(File, [u8; 32]), Flaw> {
    let mut text = Vec::new();
    open_file(directory, MANIFEST)?
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(unreadable(MANIFEST))?;
    let damaged = |what: &dyn ToString| Flaw::Manifest {
        what: what.to_string(),
    };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    let (version, expected) = (manifest.version, manifest.bytes);
    if version != VERSION {
        return Err(Flaw::Version { version });
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
    match actual == expected {
        true => Ok((file, sha256)),
        false => Err(Flaw::Length { actual, expected }),
    }
}

/// Like [`open`], and reads all of the state to verify its checksum.
pub(super) fn verify(directory: &Path, position: Position) -> Result<(), Flaw> {
    let (mut state, expected) = open(directory, position)?;
    let mut sum = Sha256::new();
    io::copy(&mut state, &mut sum).map_err(unreadable(STATE))?;
    let actual = sum.finalize();
    match actual.as_slice() == expected {
        true => Ok(()),
        false => Err(Flaw::Checksum {
            actual: HEXLOWER.encode(&actual),
            expected: HEXLOWER.encode(&expected),
        }),
    }
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
