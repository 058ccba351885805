//! Why a fetch failed, each in one line that names the thing, the value and the way out.
//!
//! Owns the wording. Must not hold logic beyond choosing the variant for an I/O error.

use std::io;
use std::path::{Path, PathBuf};

/// Why [`run`](super::run) did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The checksum given by flag or environment is not one.
    #[error("'{value}' is not a sha256: give all 64 hexadecimal digits, or the first 8 or more")]
    InvalidChecksum {
        /// What was given.
        value: String,
    },

    /// The address cannot be used at all: malformed, or its host, TLS or proxy refuses for good.
    #[error("cannot fetch {url}: {reason}: check the address, or name another with --url")]
    Address {
        /// The address.
        url: String,
        /// What the HTTP client said.
        reason: String,
    },

    /// The server answered, and the answer will not change by asking again.
    #[error("{url} answers {status}: the file may have moved, name another address with --url")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status, with its meaning.
        status: String,
    },

    /// The connection failed too often without a byte of progress in between.
    #[error("gave up on {url} after {attempts} attempts: {reason}; {}", after_giving_up(*kept, part))]
    GaveUp {
        /// The address.
        url: String,
        /// Attempts in a row that brought nothing.
        attempts: u32,
        /// What ended the last one.
        reason: String,
        /// Bytes that arrived so far.
        kept: u64,
        /// The file that holds them.
        part: PathBuf,
    },

    /// The server offers more bytes than any known source has.
    #[error("{url} is larger than {limit} bytes: this is not the expected file, check the address")]
    TooLarge {
        /// The address.
        url: String,
        /// The most that is accepted.
        limit: u64,
    },

    /// The download is complete and is not the expected file. It was removed.
    #[error(
        "{url} has the wrong checksum: expected {expected}, got {actual}; the download was removed, \
         fetch again, or pass --sha256 if the file is right"
    )]
    WrongChecksum {
        /// The address.
        url: String,
        /// Algorithm and expected digits.
        expected: String,
        /// Actual digits.
        actual: String,
    },

    /// A file of the final name is there with other content. It was left alone.
    #[error(
        "{} is there but has the wrong checksum: expected {expected}, got {actual}; remove it and \
         fetch again, or pass --sha256 if the file is right",
        path.display()
    )]
    PresentButDifferent {
        /// The file.
        path: PathBuf,
        /// Algorithm and expected digits.
        expected: String,
        /// Actual digits.
        actual: String,
    },

    /// Another fetch is at work in the same folder.
    #[error("another fetch is writing to {}: wait for it to end", directory.display())]
    Busy {
        /// The folder.
        directory: PathBuf,
    },

    /// The disk, or the user's share of it, is full.
    #[error("no space left to write {}: free some, or name another folder with --data-dir", path.display())]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
    },

    /// The place may not be written.
    #[error("may not write {}: {source}: change its permissions, or name another folder with --data-dir", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Any other trouble with a local file.
    #[error("cannot use {}: {source}: check the disk, or name another folder with --data-dir", path.display())]
    Storage {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The archive cannot be read to its end, or lacks what it should hold.
    #[error("{} is not the expected archive: {reason}; remove it and fetch again", archive.display())]
    BadArchive {
        /// The archive.
        archive: PathBuf,
        /// What was wrong.
        reason: String,
    },

    /// An entry of the archive could write outside the target folder. Nothing was unpacked.
    #[error("{} holds '{entry}', {reason}: refused, nothing was unpacked", archive.display())]
    UnsafeArchive {
        /// The archive.
        archive: PathBuf,
        /// The entry's path.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The archive unpacks to more than any known source does. Nothing was unpacked.
    #[error("{} unpacks to more than {limit}: refused, nothing was unpacked", archive.display())]
    ArchiveTooLarge {
        /// The archive.
        archive: PathBuf,
        /// The limit that it exceeds, with its unit.
        limit: String,
    },
}

impl FetchError {
    /// Names trouble with a local file by what the user can do about it.
    pub(super) fn storage(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, source }
            }
            _ => Self::Storage { path, source },
        }
    }
}

/// The way out of [`FetchError::GaveUp`].
fn after_giving_up(kept: u64, part: &Path) -> String {
    if kept == 0 {
        return "nothing arrived, check the network or name another address with --url".to_owned();
    }
    let part = part.display();
    format!("{kept} bytes are kept in {part}, run the same command to go on from there")
}
