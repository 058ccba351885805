//! The commands to workers. Values only; the `.proto` file describes what they do.

use super::{Position, ShutdownReason};
use crate::schedule::GroupLrs;
use crate::shard::{Chunk, Shard};

/// A command to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// It is a member of the run.
    Registered,
    /// Decode images.
    Prepare {
        /// Which.
        samples: Vec<u32>,
        /// Images of the whole data folder.
        images: usize,
        /// Whether to decode into the cache that the launcher's workers share.
        shared: bool,
        /// CPU threads to decode with.
        threads: u32,
    },
    /// Join the process group of a generation.
    Assign {
        /// The generation.
        generation: u64,
        /// Its rank there.
        rank: u32,
        /// The generation's ranks.
        world_size: u32,
        /// Where rank 0 listens; `None` for rank 0 itself.
        store: Option<String>,
        /// What collectives run over.
        backend: Backend,
        /// What to compute in.
        precision: ComputeType,
        /// Where the state comes from.
        origin: Origin,
        /// The rank that gives its state to all.
        source: u32,
        /// Where in the run the state is.
        position: Position,
        /// CPU threads to compute with.
        threads: u32,
    },
    /// The rank's part of an epoch.
    Plan {
        /// The generation.
        generation: u64,
        /// From 1.
        epoch: u32,
        /// Steps completed before.
        completed: u32,
        /// The rank's training samples.
        shard: Shard,
        /// The epoch's learning rates.
        lrs: GroupLrs,
        /// The rank's part of the validation set.
        validation: Vec<Chunk>,
        /// Steps that it may complete until it is granted more.
        granted: u32,
    },
    /// The rank may complete more steps.
    Grant {
        /// The generation.
        generation: u64,
        /// From 1.
        epoch: u32,
        /// Steps of the epoch that it may complete.
        granted: u32,
    },
    /// How an epoch was validated.
    EpochResult {
        /// From 1.
        epoch: u32,
        /// Whether to keep a copy of the weights as the best.
        improved: bool,
        /// Mean cross entropy over the validation set.
        validation_loss: f64,
    },
    /// Leave the generation and retain the state.
    AbortGeneration {
        /// The generation.
        generation: u64,
    },
    /// Upload a state into the run directory.
    SaveState(SaveState),
    /// Training is over.
    Finish {
        /// The generation.
        generation: u64,
        /// Validation samples to send predictions of; empty for none.
        predict: Vec<u32>,
    },
    /// End the session.
    Shutdown {
        /// Why.
        reason: ShutdownReason,
        /// Whether the process is to exit with an error.
        abort: bool,
    },
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
pub enum ComputeType {
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
    /// The run directory.
    Checkpoint,
}

/// What a worker is to upload into the run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveState {
    /// The best weights, of which it has a copy since this epoch.
    Best(u32),
    /// Its whole state, at the next step boundary.
    Checkpoint,
}
