//! Checksums as publishers give them: MD5, SHA-256, or the leading digits of a SHA-256.
//!
//! Owns parsing, computing and comparing. Must not decide what happens on a mismatch.

use super::error::FetchError;
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The fewest digits of a SHA-256 that count: as many as PyTorch puts into its file names.
const SHORTEST_PREFIX: usize = 8;

/// What a file's content must hash to, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// All 32 digits. Guards against damage only, not against malice.
    Md5(String),
    /// The first 8 to 64 digits.
    Sha256(String),
}

impl Checksum {
    /// Reads a SHA-256, whole or its first 8 or more digits.
    pub(super) fn parse_sha256(value: &str) -> Result<Self, FetchError> {
        let whole = (SHORTEST_PREFIX..=64).contains(&value.len());
        if whole && value.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            Ok(Self::Sha256(value.to_ascii_lowercase()))
        } else {
            Err(FetchError::InvalidChecksum {
                value: value.to_owned(),
            })
        }
    }

    /// The digits that the content of `path` really has.
    pub(super) fn of_file(&self, path: &Path) -> io::Result<String> {
        match self {
            Self::Md5(_) => digest::<Md5>(path),
            Self::Sha256(_) => digest::<Sha256>(path),
        }
    }

    /// Whether `actual`, from [`Checksum::of_file`], is what was expected.
    pub(super) fn matches(&self, actual: &str) -> bool {
        match self {
            Self::Md5(expected) => actual == expected,
            Self::Sha256(expected) => actual.starts_with(expected.as_str()),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(digits) => write!(f, "md5 {digits}"),
            Self::Sha256(digits) if digits.len() < 64 => write!(f, "sha256 {digits}…"),
            Self::Sha256(digits) => write!(f, "sha256 {digits}"),
        }
    }
}

fn digest<D: Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let mut digits = String::new();
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}
