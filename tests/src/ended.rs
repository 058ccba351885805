//! A run that has ended, and the files that it left.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::Location;
use crate::{Run, journal, read};

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code of the coordinator; -1 if a signal ended it.
    pub code: i32,
    /// Everything that it printed.
    pub output: String,
    location: Location,
}

impl Ended {
    pub(crate) fn new(status: ExitStatus, output: String, location: Location) -> Self {
        Self {
            code: status.code().unwrap_or(-1),
            output,
            location,
        }
    }

    /// Starts a coordinator that resumes this run.
    pub fn resume(self, arguments: &[&str]) -> Run {
        self.resume_with(arguments, |_| {})
    }

    /// The same, after `prepare` has changed the command.
    pub fn resume_with(
        self,
        arguments: &[&str],
        prepare: impl FnOnce(&mut std::process::Command),
    ) -> Run {
        let mut command = self.location.clone().resume();
        command.args(arguments);
        prepare(&mut command);
        self.location.spawn(command)
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.location.run_dir()
    }

    /// What the coordinator and its workers said, up to now.
    pub fn said(&self) -> String {
        let logs = std::fs::read_dir(self.path().join("logs"));
        let logs = logs.into_iter().flatten().flatten();
        let logs: Vec<String> = logs.map(|log| read(&log.path())).collect();
        format!("{}{}", self.output, logs.concat())
    }

    /// Checks that the run succeeded.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.output);
        self
    }

    /// Whether the run was completed, even if its coordinator was killed just after that.
    pub fn has_finished(&self) -> bool {
        let last = || journal(&self.path()).pop();
        let completed = |entry: Value| entry["event"] == "ended" && entry["ok"] == true;
        self.code == 0 || (self.code == -1 && last().is_some_and(completed))
    }

    /// Checks that the workers exit within a few seconds.
    pub fn left_no_process(self) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.location.workers().is_empty() {
            assert!(
                Instant::now() < deadline,
                "still running: {:?}\n{}",
                self.location.workers(),
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

    /// One value of every epoch.
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
