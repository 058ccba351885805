//! What workers say of themselves and of what they have done. Values only.

use super::Position;

/// Seconds spent in each phase.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Phases {
    pub data_wait: f64,
    pub forward_backward: f64,
    pub allreduce_wait: f64,
    pub optimizer: f64,
    pub validation: f64,
}

impl Phases {
    /// Name and seconds of each phase.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("data_wait", self.data_wait),
            ("forward_backward", self.forward_backward),
            ("allreduce_wait", self.allreduce_wait),
            ("optimizer", self.optimizer),
            ("validation", self.validation),
        ]
    }
}

/// What a worker found in its data folder, and on what it computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// sha256 over paths and sizes.
    pub fingerprint: String,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Path relative to the folder of classes, and size in bytes.
    pub files: Vec<(String, u64)>,
    /// `cpu`, or `cuda:` and an index.
    pub device: String,
    /// Whether the device multiplies bf16 in silicon.
    pub native_bf16: bool,
    /// As the driver names its GPU; empty on a CPU.
    pub gpu_uuid: String,
    /// What a worker that comes back brings with it.
    pub memory: RetainedState,
    /// What is wrong with the worker's machine, in words.
    pub warnings: Vec<String>,
}

/// What a worker kept while it had no coordinator or no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetainedState {
    /// Its images are decoded.
    pub prepared: bool,
    /// The state that it holds.
    pub retained: Option<Position>,
    /// The epoch of the best weights of which it holds a copy.
    pub best: Option<u32>,
}

/// Where a training thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Activity {
    Idle,
    Preparing,
    Forming,
    DataWait,
    Forward,
    /// With the all-reduce, which it overlaps.
    Backward,
    Optimizer,
    Validation,
}

/// What a worker says of itself every second, however busy its training thread is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
    /// The generation that it works for.
    pub generation: u64,
    /// What it has done.
    pub position: Position,
    /// What it does.
    pub activity: Activity,
    /// Since how many seconds.
    pub seconds: f64,
}

/// One rank's progress since its last report.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The generation that made the step.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Steps completed in this epoch.
    pub completed: u32,
    /// The rank's part, by samples, of the loss of the global batches since its last report.
    pub loss_sum: f64,
    /// The rank's samples since its last report.
    pub samples: u32,
    /// Wall seconds since its last report.
    pub seconds: f64,
    /// Where they went.
    pub phases: Phases,
}

/// Sums over one validation chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ValidationSum {
    pub chunk: u32,
    pub loss_sum: f64,
    pub correct: u32,
    pub samples: u32,
}

/// One rank's whole epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochReport {
    /// The generation that made it.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Over all training samples of the epoch, whoever trained on them.
    pub loss_sum: f64,
    /// The rank's training samples in this generation.
    pub samples: u32,
    /// Of each of the rank's chunks.
    pub validation: Vec<ValidationSum>,
    /// Seconds of the epoch by phase.
    pub phases: Phases,
}
