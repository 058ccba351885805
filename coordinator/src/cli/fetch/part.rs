//! A file that is not whole yet, and its way to its final name.
//!
//! Owns the partial file, the record of where its bytes came from, and the atomic rename. Must not
//! speak HTTP. The name under which others look for the file appears only once its content has
//! been verified and flushed.
//!
//! ```text
//! NAME.part + NAME.part.json ──(complete, checksum right, fsync)── rename ──▶ NAME
//! ```

use super::error::FetchError;
use super::sources::Source;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use ureq::http::{HeaderMap, header};

/// Where the bytes of a partial file came from: what makes it safe to append to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Origin {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    total: Option<u64>,
}

impl Origin {
    pub(super) fn of(url: &str, headers: &HeaderMap, total: Option<u64>) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        Self {
            url: url.to_owned(),
            etag: text(header::ETAG),
            last_modified: text(header::LAST_MODIFIED),
            total,
        }
    }

    /// What to send as If-Range: a weak ETag is not allowed there (RFC 9110, section 13.1.5).
    pub(super) fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }

    pub(super) fn agrees(&self, total: Option<u64>) -> bool {
        self.total.is_none() || total.is_none() || self.total == total
    }
}

/// `NAME.part` and `NAME.part.json`.
pub(super) struct Part {
    pub(super) path: PathBuf,
    origin: PathBuf,
}

impl Part {
    pub(super) fn beside(destination: &Path) -> Self {
        let with = |suffix| {
            let mut path = destination.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self {
            path: with(".part"),
            origin: with(".part.json"),
        }
    }

    /// Bytes on disk; 0 when there are none.
    pub(super) fn len(&self) -> u64 {
        self.path.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The origin on record, if it is `url`'s. Without one the bytes cannot be trusted.
    pub(super) fn origin(&self, url: &str) -> Option<Origin> {
        let text = std::fs::read_to_string(&self.origin).ok()?;
        serde_json::from_str::<Origin>(&text)
            .ok()
            .filter(|origin| origin.url == url)
    }

    /// Opens the file for writing at `start`: 0 forgets what was there and records `origin`.
    pub(super) fn open(&self, start: u64, origin: &Origin) -> Result<File, FetchError> {
        if start > 0 {
            let file = OpenOptions::new().append(true).open(&self.path);
            return file.map_err(|error| FetchError::storage(&self.path, error));
        }
        self.discard();
        let file = File::create(&self.path);
        let file = file.map_err(|error| FetchError::storage(&self.path, error))?;
        // A record that cannot be written, or is torn, only costs the resumption.
        let _ = serde_json::to_string(origin).map(|json| std::fs::write(&self.origin, json));
        Ok(file)
    }

    /// Removes both files, the record first: bytes without a record are never appended to.
    pub(super) fn discard(&self) {
        let _ = std::fs::remove_file(&self.origin);
        let _ = std::fs::remove_file(&self.path);
    }

    /// Verifies the complete file and gives it its final name.
    pub(super) fn publish(&self, source: &Source, destination: &Path) -> Result<(), FetchError> {
        let failed = |error| FetchError::storage(&self.path, error);
        let actual = source.checksum.of_file(&self.path).map_err(failed)?;
        if !source.checksum.matches(&actual) {
            self.discard();
            return Err(FetchError::WrongChecksum {
                url: source.url.clone(),
                expected: source.checksum.to_string(),
                actual,
            });
        }
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .map_err(failed)?;
        std::fs::rename(&self.path, destination).map_err(failed)?;
        let _ = std::fs::remove_file(&self.origin);
        sync_folder_of(destination)
    }
}

/// Makes a rename in the folder of `path` survive a power cut.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), FetchError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| FetchError::storage(folder, error))
}
