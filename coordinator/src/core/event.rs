//! What the core is told, what it asks for, and what it wants known. Values only.

use std::fmt;

use super::early_stopping::Best;
use super::schedule::LayerRates;
use super::shard::{Chunk, Shard};
use super::split::Split;

/// The name of a worker within a run, given at its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

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
    pub bf16_in_silicon: bool,
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
    /// Over the rank's samples since its last report.
    pub loss_sum: f64,
    /// Samples since its last report.
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
    /// Over the rank's training samples.
    pub loss_sum: f64,
    /// The rank's training samples.
    pub samples: u32,
    /// Of each of the rank's chunks.
    pub validation: Vec<ValidationSum>,
    /// Seconds of the epoch by phase.
    pub phases: Phases,
}

/// The ways in which a worker says that it cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Its data folder is of no use.
    Data,
    /// The pretrained weights are of no use.
    Weights,
    /// A device or library is missing.
    Environment,
    /// A collective broke: usually because a peer died.
    Collective,
    /// Anything else.
    Internal,
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Event {
    Joined {
        worker: WorkerId,
        host: String,
        slot: Option<u32>,
    },
    Scanned {
        worker: WorkerId,
        scan: Scan,
    },
    Preparing {
        worker: WorkerId,
        done: u32,
    },
    /// With the files that did not decode.
    Prepared {
        worker: WorkerId,
        bad: Vec<(u32, String)>,
    },
    StoreListening {
        worker: WorkerId,
        generation: u64,
        address: String,
    },
    GroupReady {
        worker: WorkerId,
        generation: u64,
    },
    Step {
        worker: WorkerId,
        report: StepReport,
    },
    EpochDone {
        worker: WorkerId,
        report: EpochReport,
    },
    /// The best weights of this epoch are durable.
    StateStored {
        epoch: u32,
    },
    Finished {
        worker: WorkerId,
        generation: u64,
    },
    Failed {
        worker: WorkerId,
        kind: FailureKind,
        message: String,
    },
    /// Its session broke.
    Lost {
        worker: WorkerId,
    },
    /// A process of the launcher ended.
    ProcessExited {
        slot: u32,
        status: String,
    },
    /// Something that the run must keep could not be written.
    StoreFailed {
        reason: String,
    },
    /// Ctrl-C.
    Interrupt,
    Tick,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it; the .proto file says more")]
pub enum Command {
    /// The run has a place for it.
    Welcome,
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
    },
    Plan {
        generation: u64,
        epoch: u32,
        shard: Shard,
        rates: LayerRates,
        validation: Vec<Chunk>,
        granted: u32,
    },
    Grant {
        generation: u64,
        epoch: u32,
        granted: u32,
    },
    Verdict {
        generation: u64,
        epoch: u32,
        improved: bool,
        validation_loss: f64,
    },
    Finish {
        generation: u64,
        show: Vec<u32>,
    },
    Shutdown {
        reason: String,
        abort: bool,
    },
}

/// A finished epoch.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct EpochSummary {
    pub epoch: u32,
    pub train_loss: f64,
    pub validation_loss: f64,
    pub validation_accuracy: f64,
    /// Samples of the validation set.
    pub validated: u64,
    pub rates: LayerRates,
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
}

/// What observers (store, metrics, progress) should know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Notice {
    Member {
        joined: usize,
        expected: usize,
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
        classes: Vec<String>,
        files: Vec<String>,
        split: Split,
    },
    GroupFormed {
        generation: u64,
        /// Host and device of each rank.
        ranks: Vec<(String, String)>,
        backend: &'static str,
        precision: &'static str,
    },
    EpochStarted {
        epoch: u32,
        steps: u32,
        world_size: u32,
        rates: LayerRates,
    },
    Step {
        rank: u32,
        report: StepReport,
    },
    EpochEnded(EpochSummary),
    Stopping(StopReason),
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
    #[error("lost {who} {when}: {cause}")]
    WorkerLost {
        who: String,
        slot: Option<u32>,
        when: String,
        cause: String,
    },
    #[error("worker process {slot} ended before it joined: {status}")]
    ExitedEarly { slot: u32, status: String },
    /// The run directory cannot be written.
    #[error("{0}")]
    RunDirectory(String),
    #[error("{message}")]
    Internal { slot: Option<u32>, message: String },
}

/// How a run ended.
pub type Outcome = Result<StopReason, RunError>;

/// What the core asks for.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Send(WorkerId, Command),
    Notify(Notice),
    /// The last action of a run.
    End(Outcome),
}
