//! What workers are told. Values only; the `.proto` file says what they do with it.

use super::Position;
use crate::schedule::GroupLrs;
use crate::shard::{Chunk, Shard};

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it; the .proto file says more")]
pub enum Command {
    /// The run has a place for it.
    Registered,
    Prepare {
        samples: Vec<u32>,
        images: usize,
        shared: bool,
    },
    Assign {
        generation: u64,
        rank: u32,
        world_size: u32,
        store: Option<String>,
        nccl: bool,
        bf16: bool,
        origin: Origin,
        /// The rank that gives its state to all.
        source: u32,
        position: Position,
    },
    Plan {
        generation: u64,
        epoch: u32,
        /// Steps done before.
        completed: u32,
        shard: Shard,
        lrs: GroupLrs,
        validation: Vec<Chunk>,
        granted: u32,
    },
    Grant {
        generation: u64,
        epoch: u32,
        granted: u32,
    },
    EpochResult {
        generation: u64,
        epoch: u32,
        improved: bool,
        validation_loss: f64,
    },
    AbortGeneration {
        generation: u64,
    },
    SaveState(SaveState),
    Finish {
        generation: u64,
        show: Vec<u32>,
    },
    Shutdown {
        reason: String,
        abort: bool,
    },
}

/// Where the state of a generation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The settings' weights.
    Fresh,
    /// What the source rank holds.
    Retained,
    /// The run directory.
    Checkpoint,
}

/// What a worker is to upload into the run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveState {
    /// The weights that it holds since the verdict on this epoch.
    Best(u32),
    /// Its whole state, at the next step boundary.
    Checkpoint,
}
