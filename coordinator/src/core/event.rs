//! What the core is told, what it asks for, and what it wants known. Values only.

use std::fmt;

use super::early_stopping::Best;
use super::schedule::LayerRates;
use super::shard::{Chunk, Shard};
use super::split::Split;

/// How far a state has come: so many steps of an epoch, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Position {
    pub epoch: u32,
    pub completed: u32,
}

impl Position {
    /// Before the first step of an epoch.
    pub const fn start_of(epoch: u32) -> Self {
        Self {
            epoch,
            completed: 0,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of epoch {}", self.completed, self.epoch)
    }
}

/// The name of a worker's session within a run, given at its first message.
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
    /// What a worker that comes back brings with it.
    pub memory: Memory,
}

/// What a worker kept while it had no coordinator or no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Its images are decoded.
    pub prepared: bool,
    /// The state that it holds.
    pub held: Option<Position>,
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
        pid: u32,
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
    BestStored {
        epoch: u32,
    },
    CheckpointStored {
        position: Position,
    },
    /// The answer to [`Action::FindCheckpoint`].
    CheckpointFound {
        position: Option<Position>,
    },
    Heartbeat {
        worker: WorkerId,
        heartbeat: Heartbeat,
    },
    /// It left a generation, with what it holds.
    Halted {
        worker: WorkerId,
        generation: u64,
        held: Option<Position>,
    },
    /// It was asked to end.
    Leaving {
        worker: WorkerId,
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
    /// A process that this coordinator started.
    ProcessStarted {
        slot: u32,
        pid: u32,
    },
    /// It ended; by a signal, or of itself.
    ProcessExited {
        slot: u32,
        pid: u32,
        signalled: bool,
        status: String,
    },
    /// A process could not be started.
    LaunchFailed {
        reason: String,
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
    Halt {
        generation: u64,
    },
    Keep(Keep),
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
    Held,
    /// The run directory.
    Checkpoint,
}

/// What a worker is to upload into the run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The weights that it holds since the verdict on this epoch.
    Best(u32),
    /// Its whole state, at the next step boundary.
    Checkpoint,
}

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
    pub ledger: Vec<Span>,
}

/// What observers (store, metrics, progress) should know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Notice {
    Joined {
        worker: WorkerId,
        host: String,
        slot: Option<u32>,
        members: usize,
        expected: usize,
    },
    /// A member is gone, and the run goes on.
    Lost {
        who: String,
        rank: Option<u32>,
        slot: Option<u32>,
        when: String,
        cause: String,
    },
    /// A member ended because somebody asked it to.
    Left {
        who: String,
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
        /// Host and device of each rank.
        ranks: Vec<(String, String)>,
        backend: &'static str,
        precision: &'static str,
    },
    EpochStarted {
        epoch: u32,
        completed: u32,
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
    #[error("worker process {slot} ended before it joined: {status}")]
    ExitedEarly { slot: u32, status: String },
    #[error("{missing}; last loss: {last}")]
    TooFewWorkers {
        missing: String,
        slot: Option<u32>,
        last: String,
    },
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
    /// Start a worker process in this slot, after ending what may still run there.
    Launch {
        slot: u32,
    },
    /// Look for the newest whole checkpoint, after what is being written is written.
    FindCheckpoint,
    /// The last action of a run.
    End(Outcome),
}
