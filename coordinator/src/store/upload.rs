//! A file that arrives in pieces and counts only once its checksum is proven.

use std::io::Write;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{StoreError, atomic};

/// A file under way. Dropped without [`Upload::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    pub(super) file: NamedTempFile,
    hash: Sha256,
    bytes: u64,
}

impl Upload {
    pub(super) fn begin(path: PathBuf) -> Result<Self, StoreError> {
        match atomic::temporary(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                hash: Sha256::new(),
                bytes: 0,
            }),
            Err(source) => Err(StoreError::Write { path, source }),
        }
    }

    /// Adds the next piece.
    ///
    /// # Errors
    /// The file system refuses, for example because it is full.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(piece)
            .map_err(|source| StoreError::Write {
                path: self.path.clone(),
                source,
            })?;
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// How many bytes have arrived.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the file its name if its SHA-256 is `expected` (32 bytes), and returns its path.
    ///
    /// # Errors
    /// [`StoreError::Checksum`] when it is not, [`StoreError::Write`] when the file system
    /// refuses; either way a former file of that name stays as it was.
    pub fn commit(self, expected: &[u8]) -> Result<PathBuf, StoreError> {
        let actual = self.hash.finalize();
        if actual.as_slice() != expected {
            return Err(StoreError::Checksum {
                path: self.path,
                expected: HEXLOWER.encode(expected),
                actual: HEXLOWER.encode(&actual),
            });
        }
        match atomic::replace(self.file, &self.path) {
            Ok(()) => Ok(self.path),
            Err(source) => Err(StoreError::Write {
                path: self.path,
                source,
            }),
        }
    }
}
