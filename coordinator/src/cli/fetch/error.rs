//! Why a fetch failed, each in one line that names the thing, the value and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// Why [`FetchArgs::run`](super::FetchArgs::run) did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The checksum given by flag or environment is not one.
    #[error("'{0}' is not a sha256: give all 64 hexadecimal digits, or the first 8 or more")]
    InvalidChecksum(String),

    /// The address, or the answer of its server, is wrong and stays so.
    #[error("cannot fetch {url}: {reason}; check the address, or give another with --url")]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status, or what the client says.
        reason: String,
    },

    /// The connection failed too often without progress.
    #[error(
        "gave up on {url} after {attempts} attempts: {reason}; check the network and run the same \
         command again: it continues after the {kept} bytes of {}",
        .part.display()
    )]
    GaveUp {
        /// The address.
        url: String,
        /// Attempts in a row that brought nothing.
        attempts: u32,
        /// What ended the last one.
        reason: String,
        /// Bytes that arrived.
        kept: u64,
        /// The file that holds them.
        part: PathBuf,
    },

    /// A complete file is not the expected one.
    #[error(
        "{what} has the wrong checksum: expected {expected}, got {actual}; {advice}, or pass \
         --sha256 if the file is right"
    )]
    WrongChecksum {
        /// The file, or the address that it came from.
        what: String,
        /// Algorithm and expected digits.
        expected: String,
        /// Actual digits.
        actual: String,
        /// The way out.
        advice: &'static str,
    },

    /// Another fetch works in the same folder.
    #[error("another fetch writes to {}: wait for it to end", .0.display())]
    Busy(PathBuf),

    /// A local file or folder cannot be used.
    #[error("cannot write {}: {source}; {}", .path.display(), advice(source))]
    Storage {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The archive is damaged, or is not the expected one. Nothing was unpacked.
    #[error("{} is not the expected archive: {reason}; remove it and fetch again", .archive.display())]
    BadArchive {
        /// The archive.
        archive: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl FetchError {
    pub(super) fn storage(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Storage { path, source }
    }
}

/// Whether `error` comes from the disk alone: reading an archive or a connection has no such error.
pub(super) fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem
    )
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose another folder with --data-dir"
        }
        _ => "check its permissions, or choose another folder with --data-dir",
    }
}
