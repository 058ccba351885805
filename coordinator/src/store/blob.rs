//! A complete and verified file of a worker, before it is written.

use std::fmt;

/// The bytes of a file and their SHA-256.
pub struct Blob {
    bytes: Vec<u8>,
    sha256: [u8; 32],
    _permit: Option<Box<dyn Send + Sync>>,
}

impl Blob {
    /// `sha256` is that of `bytes`: the receiver has verified it, and nothing computes it
    /// again.
    #[must_use]
    pub fn proven(bytes: Vec<u8>, sha256: [u8; 32]) -> Self {
        Self {
            bytes,
            sha256,
            _permit: None,
        }
    }

    /// Holds `permit` until the bytes are no longer in memory.
    #[must_use]
    pub fn holding(self, permit: impl Send + Sync + 'static) -> Self {
        Self {
            _permit: Some(Box::new(permit)),
            ..self
        }
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its checksum.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob of {} bytes", self.bytes.len())
    }
}
