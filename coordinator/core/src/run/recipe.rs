//! Everything that decides what a run does. Values only.

use std::time::Duration;

use crate::early_stopping::Rule;
use crate::schedule::Schedule;

/// Whether to compute in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where every worker has it natively.
    Auto,
    /// Single precision.
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
}

/// How often a checkpoint is taken, beside the one after each epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cadence {
    /// None in addition.
    EpochsOnly,
    /// Every so many steps of an epoch.
    Steps(u32),
    /// Every so many seconds.
    Seconds(f64),
}

/// Everything that decides what a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Workers to wait for before training starts.
    pub workers: usize,
    /// Processes of the local launcher: `workers`, or 0 where others start them.
    pub local_ranks: u32,
    /// With fewer the run does not go on.
    pub min_workers: usize,
    /// The most workers.
    pub max_workers: usize,
    /// How long a lost worker's replacement may take before the run continues with fewer.
    pub rejoin_timeout: Duration,
    /// How often in a row the launcher restarts a worker that makes no step.
    pub max_restarts: u32,
    /// Time without progress before the stalled rank is replaced.
    pub stall_timeout: Duration,
    /// When a checkpoint is taken.
    pub checkpoints: Cadence,
    /// How long the best weights, a last checkpoint and predictions may take at the end.
    pub grace: Duration,
    /// Samples of a step, over all ranks.
    pub global_batch: usize,
    /// Part of the samples kept for validation, in (0, 1).
    pub validation_fraction: f64,
    /// Samples evaluated at once.
    pub validation_chunk: usize,
    /// Of split, order and fresh weights.
    pub seed: u64,
    /// Learning rates, and the most epochs.
    pub schedule: Schedule,
    /// When the validation loss ends the run.
    pub stopping: Rule,
    /// A file that does not decode ends the run.
    pub strict_data: bool,
    /// What to compute in.
    pub precision: Precision,
    /// CPU threads of each worker; those of a machine share its processors if `None`.
    pub threads_per_worker: Option<u32>,
}
