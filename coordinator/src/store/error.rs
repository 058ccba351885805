//! The errors of the run directory and their messages.

use std::path::{Path, PathBuf};

/// Why the run directory cannot be created, read or written. Each ends a run with exit code 6.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something is there already; nothing was touched.
    #[error(
        "the run directory {path} already holds files; give --run-dir another place (an old run is never overwritten)"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be created or is no directory.
    #[error("cannot create the run directory {path}: {source}; give --run-dir another place")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What should be resumed holds no run.
    #[error(
        "{path} is not a run directory: it has no config.toml; name the directory of an earlier run"
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// Another coordinator holds the lock of the directory.
    #[error("the run in {path} is still active: another coordinator works on it; stop that first")]
    Active {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what this program wrote.
    #[error("{path} is damaged: {what}; put a good copy in its place or start a new run")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A line of a file does not hold what this program wrote.
    #[error("{path} is damaged in line {line}: {what}; mend that line or start a new run")]
    DamagedLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A file cannot be written; its former content, if any, is intact.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StoreError {
    /// For `map_err` after a reading of `path`.
    pub(super) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }

    /// For `map_err` after a writing of `path`.
    pub(super) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}
