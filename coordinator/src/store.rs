//! The run directory and the only writer of it. A file appears whole or not at all: it is
//! written under a temporary name beside its place, synced, renamed, and the directory synced.
//! Knows the layout and the formats; it decides nothing about training.

mod atomic;
mod upload;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use upload::Upload;

/// The effective settings, for `--config`.
pub const CONFIG: &str = "config.toml";
/// Which pictures trained and which validated.
pub const SPLIT: &str = "split.json";
/// One line of JSON for each epoch.
pub const METRICS: &str = "metrics.jsonl";
/// The weights of the best epoch, under torchvision's names.
pub const BEST_WEIGHTS: &str = "best.safetensors";
/// Validation pictures under their predicted and true class names.
pub const PREDICTIONS: &str = "predictions.png";
/// Losses and accuracy over the epochs.
pub const CURVES: &str = "curves.png";
/// One log file for each worker.
pub const LOGS: &str = "logs";

/// Why the run directory cannot be made or written. All of these end a run with exit code 6
/// but [`StoreError::Checksum`], which is a transfer gone wrong.
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
    /// A file cannot be written; its former content, if any, is intact.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An uploaded file arrived damaged and was dropped; its former content is intact.
    #[error("{path} arrived damaged: its sha256 is {actual}, not {expected}; it was dropped")]
    Checksum {
        /// The file that it should have become.
        path: PathBuf,
        /// The sender's checksum, in hexadecimal.
        expected: String,
        /// That of the bytes received, in hexadecimal.
        actual: String,
    },
    /// A file name that would leave the run directory.
    #[error("`{name}` is not a plain file name")]
    Name {
        /// What was given.
        name: String,
    },
}

/// Which pictures trained and which validated; paths are relative to the folder of classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Class names; the position is the label.
    pub classes: Vec<String>,
    /// Pictures of the training set.
    pub train: Vec<String>,
    /// Pictures of the validation set.
    pub validation: Vec<String>,
}

/// A line of `metrics.jsonl`. A loss that is not finite stands there as `null`, as JSON has no
/// other word for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over all training samples of the epoch.
    pub train_loss: f64,
    /// Mean over all validation samples after the epoch.
    pub validation_loss: f64,
    /// Share of validation samples whose likeliest class is the true one, 0 to 1.
    pub validation_accuracy: f64,
    /// Learning rate of each layer group in the epoch.
    pub learning_rates: BTreeMap<String, f64>,
    /// Training samples per second over all ranks.
    pub images_per_second: f64,
    /// Wall seconds by phase.
    pub seconds: BTreeMap<String, f64>,
    /// Ranks at the end of the epoch.
    pub world_size: usize,
    /// Generation at the end of the epoch.
    pub generation: u64,
}

/// The run directory of one run.
#[derive(Debug)]
pub struct RunStore {
    root: PathBuf,
    /// All lines so far: the file is written anew for each epoch, which keeps it whole.
    metrics: Vec<u8>,
}

impl RunStore {
    /// Makes the directory, or takes an empty one.
    ///
    /// # Errors
    /// It holds something already, or cannot be created or written.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        let refuse = |source| StoreError::Create {
            path: root.to_owned(),
            source,
        };
        std::fs::create_dir_all(root).map_err(refuse)?;
        if std::fs::read_dir(root).map_err(refuse)?.next().is_some() {
            return Err(StoreError::NotEmpty {
                path: root.to_owned(),
            });
        }
        // Only one of two coordinators can create this folder, so only one gets the directory.
        std::fs::create_dir(root.join(LOGS)).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => StoreError::NotEmpty {
                path: root.to_owned(),
            },
            _ => refuse(source),
        })?;
        Ok(Self {
            root: root.to_owned(),
            metrics: Vec::new(),
        })
    }

    /// The run directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the workers' logs, which the launcher fills.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// Keeps the effective configuration, as `RunConfig::to_toml` gives it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_config(&self, toml: &str) -> Result<(), StoreError> {
        self.write(CONFIG, toml.as_bytes())
    }

    /// Keeps the split.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_split(&self, split: &Split) -> Result<(), StoreError> {
        let mut text = to_json(split, &self.root.join(SPLIT))?;
        text.push(b'\n');
        self.write(SPLIT, &text)
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// The file cannot be written; it then holds the former lines, and so does the next attempt.
    pub fn append_epoch(&mut self, record: &EpochRecord) -> Result<(), StoreError> {
        let mut lines = self.metrics.clone();
        lines.extend(to_json(record, &self.root.join(METRICS))?);
        lines.push(b'\n');
        self.write(METRICS, &lines)?;
        self.metrics = lines;
        Ok(())
    }

    /// Writes a whole file, for example [`CURVES`].
    ///
    /// # Errors
    /// The name is not plain, or the file cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.place(name)?;
        atomic::write(&path, |file| file.write_all(bytes))
            .map_err(|source| StoreError::Write { path, source })
    }

    /// Starts to receive a file in pieces; nothing is visible under `name` before
    /// [`Upload::commit`], and dropping the upload leaves no trace.
    ///
    /// # Errors
    /// The name is not plain, or the temporary file cannot be created.
    pub fn begin_upload(&self, name: &str) -> Result<Upload, StoreError> {
        Upload::begin(self.place(name)?)
    }

    fn place(&self, name: &str) -> Result<PathBuf, StoreError> {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if plain {
            Ok(self.root.join(name))
        } else {
            Err(StoreError::Name {
                name: name.to_owned(),
            })
        }
    }
}

fn to_json(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Write {
        path: path.to_owned(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests;
