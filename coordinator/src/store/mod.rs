//! The run directory and the only writer of it. A file appears complete or not at all: it is
//! written under a temporary name beside its place, synced, renamed, and the directory synced.
//! While a run is in progress, the [`Recorder`] alone writes. Knows the layout and the formats; it
//! decides nothing about training.

mod atomic;
mod blob;
pub mod checkpoints;
mod epochs;
mod error;
mod header;
mod history;
pub mod journal;
mod lock;
mod recorder;
mod resume;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coordinator_core::event::{BadFile, FinishedEpoch};
use serde::{Deserialize, Serialize};

pub use blob::Blob;
pub use checkpoints::{Checkpoints, Newest};
pub use error::StoreError;
pub use history::{RunHistory, reason_of_end};
pub use journal::{Journal, JournalEntry, JournalLine};
pub use lock::LOCK;
pub use recorder::{Image, Job, LargeFile, QUEUE, Recorded, Recorder, RecorderError, Render};
pub use resume::ADDRESS;

use journal::EVENTS;
use lock::Lock;

/// The effective settings, for `--config`.
pub const CONFIG: &str = "config.toml";
/// Which images train and which validate.
pub const SPLIT: &str = "split.json";
/// One line of JSON for each epoch.
pub const METRICS: &str = "metrics.jsonl";
/// One line of JSON for each file that does not decode.
pub const BAD_FILES: &str = "bad-files.jsonl";
/// The weights of the best epoch, under torchvision's names.
pub const BEST_WEIGHTS: &str = "best.safetensors";
/// Validation images under their predicted and true class names.
pub const PREDICTIONS: &str = "predictions.png";
/// Losses and accuracy over the epochs.
pub const CURVES: &str = "curves.png";
/// One log file for each worker.
pub const LOGS: &str = "logs";

/// Which images train and which validate; paths are relative to the folder of classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// SHA-256 of the manifest in hexadecimal, as the workers report it.
    pub fingerprint: String,
    /// Class names; the position is the label.
    pub classes: Vec<String>,
    /// Images of the training set.
    pub train: Vec<String>,
    /// Images of the validation set.
    pub validation: Vec<String>,
}

impl Split {
    /// The `split` of `files`.
    fn of(
        fingerprint: String,
        classes: Vec<String>,
        files: &[String],
        split: &coordinator_core::split::Split,
    ) -> Self {
        let paths = |samples: &[u32]| {
            let samples = samples.iter();
            samples
                .filter_map(|at| files.get(*at as usize).cloned())
                .collect()
        };
        Self {
            fingerprint,
            classes,
            train: paths(&split.train),
            validation: paths(&split.validation),
        }
    }
}

/// The run directory of one run. While it lives, no other coordinator gets the directory.
#[derive(Debug)]
pub struct RunStore {
    root: PathBuf,
    /// All lines so far: the file is written anew for each epoch, which keeps it whole.
    epochs: Vec<FinishedEpoch>,
    _lock: Lock,
}

impl RunStore {
    /// Makes the directory, or takes one that is empty but for what a failed attempt to begin a run
    /// left there. A run has begun once the caller writes [`CONFIG`], after all else.
    ///
    /// # Errors
    /// It holds something already, or cannot be created or written.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        let refuse = |source| StoreError::Create {
            path: root.to_owned(),
            source,
        };
        let check = || match is_unused(root) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::NotEmpty {
                path: root.to_owned(),
            }),
            Err(error) => Err(refuse(error)),
        };
        std::fs::create_dir_all(root).map_err(refuse)?;
        check()?;
        let lock = Lock::take(root)?;
        // Another coordinator may have had the lock before.
        check()?;
        let clear = || -> io::Result<()> {
            atomic::sweep(root)?;
            if root.join(EVENTS).exists() {
                std::fs::remove_file(root.join(EVENTS))?;
            }
            std::fs::create_dir_all(root.join(LOGS))
        };
        clear().map_err(refuse)?;
        Ok(Self {
            root: root.to_owned(),
            epochs: Vec::new(),
            _lock: lock,
        })
    }

    /// The run directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes the split.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_split(&self, split: &Split) -> Result<(), StoreError> {
        let text = serde_json::to_string(split)
            .map_err(|error| StoreError::write(&self.root.join(SPLIT))(error.into()))?;
        self.write(SPLIT, format!("{text}\n").as_bytes())
    }

    /// Writes the list of the files that do not decode.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_bad_files(&self, bad: &[BadFile]) -> Result<(), StoreError> {
        let line = |bad: &BadFile| {
            let line = serde_json::json!({ "path": bad.path, "reason": bad.error });
            format!("{line}\n")
        };
        let lines: String = bad.iter().map(line).collect();
        self.write(BAD_FILES, lines.as_bytes())
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// The file cannot be written; it then holds the former lines, and so does the next attempt.
    pub fn append_epoch(&mut self, epoch: FinishedEpoch) -> Result<(), StoreError> {
        self.epochs.push(epoch);
        let written = self.write_epochs(&self.epochs);
        if written.is_err() {
            self.epochs.pop();
        }
        written
    }

    /// All lines of `metrics.jsonl` so far.
    #[must_use]
    pub fn epochs(&self) -> &[FinishedEpoch] {
        &self.epochs
    }

    /// Writes a file, for example [`CURVES`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &'static str, bytes: &[u8]) -> Result<(), StoreError> {
        write_file(&self.root, name, bytes)
    }

    fn write_epochs(&self, epochs: &[FinishedEpoch]) -> Result<(), StoreError> {
        let lines = epochs::encode(epochs)
            .map_err(|error| StoreError::write(&self.root.join(METRICS))(error.into()))?;
        self.write(METRICS, &lines)
    }
}

fn write_file(root: &Path, name: &'static str, bytes: &[u8]) -> Result<(), StoreError> {
    let path = root.join(name);
    atomic::write(&path, |file| file.write_all(bytes)).map_err(StoreError::write(&path))
}

/// Whether a directory holds nothing but what a failed attempt to begin a run leaves there, of which
/// the lock is the first.
fn is_unused(root: &Path) -> io::Result<bool> {
    let mut others = false;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let leftover = match name.to_str() {
            Some(LOCK) => continue,
            Some(LOGS) => std::fs::read_dir(entry.path())?.next().is_none(),
            Some(name) => name == EVENTS || atomic::is_partial(name),
            None => false,
        };
        if !leftover {
            return Ok(false);
        }
        others = true;
    }
    Ok(!others || root.join(LOCK).exists())
}

#[cfg(test)]
mod tests;
