//! The result of a run without faults, which a run with faults must have as well.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::{Ended, Run, binary, ended, scratch};

/// The largest difference between losses, and between weights, that counts as the same result.
pub const TOLERANCE: f64 = 1e-5;

/// The result of a run without faults.
#[derive(Debug)]
pub struct Baseline {
    epochs: Vec<Value>,
    weights: Vec<(String, Vec<f32>)>,
}

/// The largest differences between two results that count as the same.
#[derive(Debug, Clone, Copy)]
pub struct Agreement {
    /// Between losses.
    pub losses: f64,
    /// Between weights.
    pub weights: f64,
}

impl From<&Ended> for Baseline {
    fn from(ended: &Ended) -> Self {
        Self {
            epochs: ended.epochs(),
            weights: ended.weights(),
        }
    }
}

impl Baseline {
    /// The result of a small run of two workers with these arguments. It is computed once for a
    /// build of the binaries and kept for all tests.
    pub fn of(arguments: &[&str]) -> Self {
        let cache = scratch().join("baselines");
        std::fs::create_dir_all(&cache).expect("the target folder is writable");
        let lock = std::fs::File::create(cache.join("lock")).expect("a file");
        lock.lock().expect("a lock");
        let folder = cache.join(key(arguments));
        if !folder.exists() {
            // Results of other builds are of no use any more.
            let old = std::fs::read_dir(&cache).expect("a folder").flatten();
            for old in
                old.filter(|entry| !entry.file_name().to_string_lossy().starts_with(&programs()))
            {
                // This fails for the lock, which is a file and stays.
                let _ = std::fs::remove_dir_all(old.path());
            }
            let timeout = Duration::from_secs(3600);
            let run = Run::small(2, arguments).with_timeout(timeout);
            let ended = run.wait().succeeded().left_no_process();
            keep(&ended, &folder);
        }
        Self {
            epochs: ended::epochs(&folder),
            weights: ended::weights(&folder),
        }
    }

    /// Checks that `run_dir` holds this result: each epoch once with the same losses, each step
    /// of it once, and the same best weights.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, run_dir: &Path) -> Result<Agreement, String> {
        let epochs = ended::epochs(run_dir);
        if epochs.len() != self.epochs.len() {
            let (have, want) = (epochs.len(), self.epochs.len());
            return Err(format!("{have} epochs instead of {want}"));
        }
        let mut losses: f64 = 0.0;
        for (epoch, expected) in epochs.iter().zip(&self.epochs) {
            for key in ["epoch", "train_loss", "validation_loss"] {
                let number = |line: &Value| line[key].as_f64().unwrap_or(f64::NAN);
                let (a, b) = (number(epoch), number(expected));
                losses = losses.max((a - b).abs());
                if !close((a - b).abs()) {
                    return Err(format!("{key} is {a} instead of {b}: {epoch}"));
                }
            }
            let steps = |line: &Value| line["ledger"].as_array().and_then(|rows| contiguous(rows));
            if steps(epoch).is_none() || steps(epoch) != steps(expected) {
                return Err(format!("a step was made twice or not at all: {epoch}"));
            }
        }
        let mut difference: f64 = 0.0;
        let found = ended::weights(run_dir);
        if found.len() != self.weights.len() {
            return Err(format!("{} tensors", found.len()));
        }
        for ((name, a), (expected, b)) in found.iter().zip(&self.weights) {
            if name != expected || a.len() != b.len() {
                return Err(format!("{name} instead of {expected}"));
            }
            for (a, b) in a.iter().zip(b) {
                let apart = f64::from((a - b).abs());
                if !close(apart) {
                    return Err(format!("{name} differs by {apart:e}"));
                }
                difference = difference.max(apart);
            }
        }
        Ok(Agreement {
            losses,
            weights: difference,
        })
    }

    /// Panics where [`Baseline::compare`] fails.
    pub fn assert_same(&self, ended: &Ended) {
        if let Err(difference) = self.compare(&ended.path()) {
            panic!("{difference}\n{}", ended.output);
        }
    }

    /// The mean time of an epoch, in seconds.
    pub fn epoch_seconds(&self) -> f64 {
        let seconds = self
            .epochs
            .iter()
            .map(|epoch| epoch["seconds"]["total"].as_f64());
        seconds.flatten().sum::<f64>() / self.epochs.len() as f64
    }
}

/// False for NaN.
fn close(apart: f64) -> bool {
    apart < TOLERANCE
}

/// The end of the last row, if each row begins where the one before it ends.
fn contiguous(rows: &[Value]) -> Option<u64> {
    rows.iter().try_fold(0, |next, row| {
        let (first, end) = (row["first"].as_u64()?, row["end"].as_u64()?);
        (first == next && end >= first).then_some(end)
    })
}

fn keep(ended: &Ended, folder: &PathBuf) {
    let partial = tempfile::tempdir_in(scratch()).expect("a folder");
    for name in ["metrics.jsonl", "best.safetensors"] {
        std::fs::copy(ended.path().join(name), partial.path().join(name)).expect("a copy");
    }
    std::fs::rename(partial.keep(), folder).expect("a new name");
}

fn key(arguments: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    arguments.hash(&mut hasher);
    format!("{}-{:016x}", programs(), hasher.finish())
}

fn programs() -> String {
    let mut hasher = DefaultHasher::new();
    for name in ["coordinator", "worker"] {
        let built = binary(name).metadata().and_then(|file| file.modified());
        built.expect("a time of change").hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
