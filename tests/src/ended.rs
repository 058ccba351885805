//! A run that has ended, and what it left.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::Place;
use crate::{Run, journal, read};

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Everything it printed.
    pub output: String,
    place: Place,
}

impl Ended {
    pub(crate) fn new(status: ExitStatus, output: String, place: Place) -> Self {
        Self {
            code: status.code().unwrap_or(-1),
            output,
            place,
        }
    }

    /// Starts a coordinator that goes on with this run.
    pub fn resume(self, arguments: &[&str]) -> Run {
        self.resume_with(arguments, |_| {})
    }

    /// The same, of a command that is `prepare`d first.
    pub fn resume_with(
        self,
        arguments: &[&str],
        prepare: impl FnOnce(&mut std::process::Command),
    ) -> Run {
        let mut command = self.place.clone().resume();
        command.args(arguments);
        prepare(&mut command);
        self.place.spawn(command)
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.place.run_dir()
    }

    /// Checks that the run succeeded.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.output);
        self
    }

    /// Whether the run came to its end: also if its coordinator was killed just after that.
    pub fn has_finished(&self) -> bool {
        let last = || journal(&self.path()).pop();
        let well = |entry: Value| entry["event"] == "ended" && entry["ok"] == true;
        self.code == 0 || (self.code == -1 && last().is_some_and(well))
    }

    /// Checks that no worker is left, after a moment in which they may end.
    pub fn left_no_process(self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.place.workers().is_empty() {
            assert!(
                Instant::now() < deadline,
                "still there: {:?}\n{}",
                self.place.workers(),
                self.output
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// The lines of `metrics.jsonl`.
    pub fn epochs(&self) -> Vec<Value> {
        epochs(&self.path())
    }

    /// One number of every epoch.
    pub fn column(&self, key: &str) -> Vec<f64> {
        self.epochs()
            .iter()
            .map(|epoch| epoch[key].as_f64().expect("a number"))
            .collect()
    }

    /// All values of the floating-point tensors of `best.safetensors`, by name.
    pub fn weights(&self) -> Vec<(String, Vec<f32>)> {
        weights(&self.path())
    }
}

/// The lines of `metrics.jsonl` in a run directory.
pub(crate) fn epochs(run_dir: &Path) -> Vec<Value> {
    read(&run_dir.join("metrics.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// The floating-point tensors of `best.safetensors` in a run directory, by name.
pub(crate) fn weights(run_dir: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(run_dir.join("best.safetensors")).expect("the best weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32)
        .map(|(name, tensor)| {
            let values = tensor.data().chunks_exact(4);
            let values = values
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            (name, values)
        })
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}
