//! The orders to a worker and its reports. Values only; `trainer.proto` has the same messages
//! on the wire.

use std::path::PathBuf;
use std::sync::Arc;

/// How far a state has come: the steps completed in an epoch. The order is that of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// From 1.
    pub epoch: u32,
    /// Steps completed in this epoch.
    pub completed: u32,
}

/// The orders to the training thread, which carries them out one after the other.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Report data, device and retained state. The first order of each session.
    Scan,
    /// Decode images.
    Prepare(Prepare),
    /// Join the process group of a generation.
    Assign(Assignment),
    /// Train this epoch.
    Plan(Arc<EpochPlan>),
    /// How the epoch was validated.
    EpochResult(EpochResult),
    /// Leave this generation and retain the state.
    AbortGeneration(u64),
    /// Upload a state into the run directory.
    SaveState(SaveState),
    /// No further step follows.
    Finish {
        /// The generation.
        generation: u64,
        /// Validation samples to upload predictions of; empty for none.
        predict: Vec<u32>,
    },
    /// End the thread.
    Shutdown,
}

/// Images to decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// Places in the list of images.
    pub samples: Vec<u32>,
    /// The cache that workers of one host share; `None` for a cache in memory.
    pub cache_file: Option<PathBuf>,
    /// CPU threads to decode with.
    pub threads: u32,
}

/// A rank in a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The generation.
    pub generation: u64,
    /// The rank of this worker.
    pub rank: u32,
    /// Ranks of the generation.
    pub world_size: u32,
    /// HOST:PORT of rank 0's store; `None` for rank 0 itself.
    pub store: Option<String>,
    /// What collectives run over.
    pub backend: Backend,
    /// What the generation computes in.
    pub precision: Precision,
    /// Where the state comes from.
    pub origin: Origin,
    /// The rank that broadcasts its state.
    pub source: u32,
    /// Where in the run the state is.
    pub position: Position,
    /// CPU threads to compute with.
    pub threads: u32,
}

/// What collectives run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Between CPUs.
    Gloo,
    /// Between GPUs.
    Nccl,
}

/// What a generation computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
}

/// Where the state of a generation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The pretrained or random weights of the settings.
    Fresh,
    /// What the source rank retains.
    Retained,
    /// The run directory's checkpoint at the assignment's position.
    Checkpoint,
}

/// One rank's part of what is left of an epoch. Step `completed + k` trains on the next
/// `local_counts[k]` of `samples`, as a part of a global batch of `global_counts[k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochPlan {
    /// The generation.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Steps completed before.
    pub completed: u32,
    /// The rank's training samples, in order.
    pub samples: Vec<u32>,
    /// Of each step, the rank's samples.
    pub local_counts: Vec<u32>,
    /// Of each step, the samples of all ranks.
    pub global_counts: Vec<u32>,
    /// Learning rate of each parameter group, from the first layers to the head.
    pub lrs: [f64; 6],
    /// The rank's part of the validation set.
    pub validation: Vec<ValidationChunk>,
    /// Steps that it may complete until it is granted more.
    pub granted: u32,
}

/// A part of the validation set that one rank evaluates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationChunk {
    /// Its place in the validation set.
    pub chunk: u32,
    /// Its samples.
    pub samples: Vec<u32>,
}

/// Steps of an epoch that may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepGrant {
    /// The generation.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// A rank that completed so many waits for more.
    pub granted: u32,
}

/// The coordinator's result of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochResult {
    /// From 1.
    pub epoch: u32,
    /// Whether to copy the weights as the best so far.
    pub improved: bool,
    /// Mean cross entropy over the validation set.
    pub validation_loss: f64,
}

/// What a worker is to upload into the run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveState {
    /// The best weights, copied at the result of this epoch.
    Best(u32),
    /// The whole state, at the next step boundary.
    Checkpoint,
}

/// What a worker keeps while it has no coordinator or no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetainedState {
    /// Its images are decoded.
    pub prepared: bool,
    /// Where its state stands.
    pub retained: Option<Position>,
    /// The epoch of its copy of the best weights.
    pub best: Option<u32>,
}

/// What the training thread reports. A scan, which names data and device, is the worker's own.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// Images are decoded.
    Prepared {
        /// Files that cannot be decoded.
        bad: Vec<BadFile>,
    },
    /// The rank is in the group, with the state of the source.
    GroupReady {
        /// The generation.
        generation: u64,
    },
    /// A step.
    Step(StepReport),
    /// An epoch, with the rank's part of the validation.
    EpochDone(EpochReport),
    /// The thread has left its group.
    GenerationAborted {
        /// As in the order.
        generation: u64,
        /// The state that it retains.
        retained: Option<Position>,
    },
    /// Everything that the run needs of this worker is uploaded.
    Finished {
        /// The generation.
        generation: u64,
    },
    /// The group broke; the thread has left it and waits for an order.
    GroupBroken {
        /// The error of libtorch.
        message: String,
    },
}

/// A file that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// Its place in the list of images.
    pub sample: u32,
    /// The decoder's error.
    pub reason: String,
}

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
    /// The rank's part of the validation.
    pub validation: f64,
}

impl Phases {
    pub(crate) fn add(&mut self, other: &Self) {
        self.data_wait += other.data_wait;
        self.forward_backward += other.forward_backward;
        self.allreduce_wait += other.allreduce_wait;
        self.optimizer += other.optimizer;
        self.validation += other.validation;
    }
}

/// One step of one rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The generation.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Steps completed in this epoch.
    pub completed: u32,
    /// The rank's part, by samples, of the loss of the global batch.
    pub loss_sum: f64,
    /// The rank's samples.
    pub samples: u32,
    /// Wall seconds.
    pub seconds: f64,
    /// The same seconds, by phase.
    pub phases: Phases,
}

/// Sums over one chunk of the validation set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidationSum {
    /// The chunk.
    pub chunk: u32,
    /// Sum of the cross entropy over its samples.
    pub loss_sum: f64,
    /// Samples whose top-1 class is the true one.
    pub correct: u32,
    /// Its samples.
    pub samples: u32,
}

/// One rank's epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochReport {
    /// The generation.
    pub generation: u64,
    /// From 1.
    pub epoch: u32,
    /// Over all training samples of the epoch, of all ranks and generations.
    pub loss_sum: f64,
    /// The rank's training samples in this generation.
    pub samples: u32,
    /// Of each of the rank's chunks.
    pub validation: Vec<ValidationSum>,
    /// Seconds by phase.
    pub phases: Phases,
}

/// What the training thread does; heartbeats carry it.
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

/// Why the training thread cannot carry out an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// The data folder cannot be used.
    #[error("{0}")]
    Data(String),
    /// The pretrained weights cannot be used.
    #[error("{0}")]
    Weights(String),
    /// A library is missing, or there is too little memory.
    #[error("{0}")]
    Environment(String),
    /// The GPU cannot be used.
    #[error("{0}")]
    Device(String),
    /// A collective or a session broke, usually because a peer died: the worker can continue.
    #[error("{0}")]
    Collective(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}
