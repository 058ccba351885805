//! The reports of workers. Values only.

use std::collections::BTreeSet;

use super::Position;

/// Seconds spent in each phase.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Phases {
    /// Waiting for the next batch.
    pub data_wait: f64,
    /// Forward and backward pass.
    pub forward_backward: f64,
    /// Waiting for the gradients of the other ranks.
    pub allreduce_wait: f64,
    /// The optimizer's update.
    pub optimizer: f64,
    /// The rank's part of a validation.
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

    /// The mean of each phase over `ranks`; 0 where there are none.
    pub fn mean(ranks: &[Self]) -> Self {
        let mut mean = Self::default();
        for rank in ranks {
            let count = ranks.len() as f64;
            mean.data_wait += rank.data_wait / count;
            mean.forward_backward += rank.forward_backward / count;
            mean.allreduce_wait += rank.allreduce_wait / count;
            mean.optimizer += rank.optimizer / count;
            mean.validation += rank.validation / count;
        }
        mean
    }
}

/// The data folder and the device of a worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scan {
    /// sha256 over paths and sizes.
    pub fingerprint: String,
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Path relative to the folder of classes, and size in bytes.
    pub files: Vec<(String, u64)>,
    /// `cpu`, or `cuda:` and an index.
    pub device: String,
    /// Whether the device has native bf16.
    pub native_bf16: bool,
    /// As the driver names its GPU; empty on a CPU.
    pub gpu_uuid: String,
    /// What it may compute with beside a GPU.
    pub processors: Processors,
    /// What a worker that rejoins has retained.
    pub memory: RetainedState,
    /// Problems of the worker's machine, in its messages.
    pub warnings: Vec<String>,
}

impl Scan {
    /// Whether the worker computes on a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.device.starts_with("cuda")
    }
}

/// The processors that a worker may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processors {
    /// The machine, the same for all workers on it.
    pub machine: String,
    /// Those in the CPU affinity of its process.
    pub ids: BTreeSet<u32>,
    /// Threads that it may run at once.
    pub threads: u32,
    /// The cgroup whose CPU quota it shares with others; empty if there is none.
    pub cgroup: String,
    /// Processors of that quota.
    pub quota: u32,
}

/// What a worker kept while it had no coordinator or no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetainedState {
    /// Its images are decoded.
    pub prepared: bool,
    /// The state that it retains.
    pub retained: Option<Position>,
    /// The epoch of the best weights of which it has a copy.
    pub best: Option<u32>,
}

/// What a training thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It waits for the coordinator.
    Idle,
    /// It decodes images.
    Preparing,
    /// It joins a process group.
    Forming,
    /// It waits for the next batch.
    DataWait,
    /// Forward pass.
    Forward,
    /// Backward pass, and the all-reduce that overlaps it.
    Backward,
    /// The optimizer's update.
    Optimizer,
    /// It evaluates its part of the validation set.
    Validation,
}

/// The heartbeat that a worker sends every second, however busy its training thread is.
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
    /// The same seconds, by phase.
    pub phases: Phases,
}

/// Sums over one validation chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidationSum {
    /// The chunk's place in the validation set.
    pub chunk: u32,
    /// Sum of the cross entropy over its samples.
    pub loss_sum: f64,
    /// Samples whose top-1 class is the true one.
    pub correct: u32,
    /// Its samples.
    pub samples: u32,
}

/// One rank's whole epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochReport {
    /// The generation that made it.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Over all training samples of the epoch, of all ranks and generations.
    pub loss_sum: f64,
    /// The rank's training samples in this generation.
    pub samples: u32,
    /// Of each of the rank's chunks.
    pub validation: Vec<ValidationSum>,
    /// Seconds of the epoch by phase.
    pub phases: Phases,
}
