//! What observers should know of a run, and how it ends. Values only.

use super::{Phases, Position, StepReport, WorkerId};
use crate::early_stopping::Best;
use crate::schedule::GroupLrs;
use crate::split::Split;

/// A row of the ledger: these steps of an epoch were made once, by this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Span {
    pub generation: u64,
    pub world_size: u32,
    pub first: u32,
    /// Exclusive.
    pub end: u32,
}

/// A finished epoch.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FinishedEpoch {
    pub epoch: u32,
    pub train_loss: f64,
    pub validation_loss: f64,
    pub validation_accuracy: f64,
    /// Samples of the validation set.
    pub validated: u64,
    pub lrs: GroupLrs,
    pub images_per_second: f64,
    /// Of each rank.
    pub phases: Vec<Phases>,
    /// Wall seconds from plan to barrier.
    pub seconds: f64,
    pub world_size: u32,
    pub generation: u64,
    pub improved: bool,
    pub best: Option<Best>,
    pub wait: u32,
    pub ledger: Vec<Span>,
}

/// The holder of a rank, while a generation lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Ranked {
    pub worker: WorkerId,
    pub host: String,
    pub device: String,
    pub gpu_uuid: String,
}

/// What broke a group. Of several the greatest is said, as the death of a member makes the
/// others' group break, and they may be heard first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its members live, and their collectives failed.
    GroupBroke,
    /// A member's session broke.
    Died,
    /// The coordinator put a member down: it stalled, or failed in itself.
    Evicted,
}

/// What observers (store, metrics, progress) should know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Fact {
    Joined {
        worker: WorkerId,
        host: String,
        local_rank: Option<u32>,
        members: usize,
        expected: usize,
    },
    /// A member is gone, and the run goes on.
    Lost {
        who: String,
        rank: Option<u32>,
        local_rank: Option<u32>,
        when: String,
        cause: String,
    },
    /// A member ended because somebody asked it to.
    Left {
        who: String,
    },
    /// Something is wrong with the machine of a worker that goes on all the same.
    Warned {
        host: String,
        warning: String,
    },
    /// Somebody was turned away.
    Refused {
        who: String,
        reason: String,
    },
    Stalled {
        line: String,
    },
    /// What a run without a group waits for; said when it changes.
    Waiting {
        reason: String,
    },
    /// The run goes on from an older state: epochs from this one on are made again.
    WentBack {
        position: Position,
    },
    /// A group works again after a loss.
    Recovered {
        cause: Cause,
        generation: u64,
        position: Position,
        world_size: usize,
        seconds: f64,
        steps_lost: u32,
    },
    Preparing {
        done: usize,
        total: usize,
    },
    BadFile {
        path: String,
        reason: String,
    },
    SplitReady {
        fingerprint: String,
        classes: Vec<String>,
        files: Vec<String>,
        split: Split,
    },
    GroupFormed {
        generation: u64,
        /// Who holds each rank.
        ranks: Vec<Ranked>,
        backend: &'static str,
        precision: &'static str,
    },
    EpochStarted {
        epoch: u32,
        completed: u32,
        steps: u32,
        world_size: u32,
        lrs: GroupLrs,
    },
    Step {
        rank: u32,
        report: StepReport,
    },
    EpochEnded(FinishedEpoch),
    Stopping(StopReason),
    /// The run ends without the last checkpoint that it asked for.
    CheckpointMissed,
}

/// Why training ended, as machines read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum StopReason {
    Patience,
    MaxEpochs,
    NonFiniteLoss,
    Interrupted,
}

impl StopReason {
    /// The name in metrics and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patience => "patience",
            Self::MaxEpochs => "max_epochs",
            Self::NonFiniteLoss => "non_finite_loss",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a run failed; each has its exit code.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RunError {
    #[error("{0}")]
    Data(String),
    #[error("{0}")]
    Weights(String),
    #[error("{0}")]
    Environment(String),
    #[error("worker process {local_rank} ended before it joined: {status}")]
    ExitedEarly { local_rank: u32, status: String },
    #[error("{missing}; last loss: {last}")]
    TooFewWorkers {
        missing: String,
        local_rank: Option<u32>,
        last: String,
    },
    /// The run directory cannot be written.
    #[error("{0}")]
    RunDirectory(String),
    #[error("{message}")]
    Internal {
        local_rank: Option<u32>,
        message: String,
    },
}

/// How a run ended.
pub type Outcome = Result<StopReason, RunError>;
