//! The events, actions and facts of the core. Values only.

mod command;
mod fact;
mod member;
mod reason;
mod report;

pub use command::{Backend, Command, ComputeType, Origin, SaveState};
pub use fact::{BadFile, Fact, FinishedEpoch, Ranked, Span};
pub use member::{
    Location, Loss, LossCause, MemberInfo, OutageCause, ProcessStatus, StallReport, WaitingRanks,
};
pub use reason::{
    DataError, DataFolder, EnvironmentError, Outcome, RefusalReason, RunError, ShutdownReason,
    StopReason, WaitReason,
};
pub use report::{
    Activity, EpochReport, Heartbeat, Phases, Processors, RetainedState, Scan, StepReport,
    ValidationSum,
};

/// How far a state has come: the steps completed in an epoch. The order is that of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// From 1.
    pub epoch: u32,
    /// Steps completed in this epoch; 0 is between it and the epoch before.
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

/// The name of a worker's session within a run, given at its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// The ways in which a worker reports that it cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Its data folder cannot be used.
    Data,
    /// The pretrained weights cannot be used.
    Weights,
    /// A library is missing, or there is too little memory.
    Environment,
    /// Its GPU cannot be used, perhaps for a while only: a GPU resets after some faults.
    Device,
    /// A collective failed, usually because a peer died.
    Collective,
    /// Anything else.
    Internal,
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A worker opened a session.
    Joined {
        /// The name of the session.
        worker: WorkerId,
        /// The worker's machine.
        host: String,
        /// Its process.
        pid: u32,
        /// The same for all sessions of a process, and no other's.
        instance: u64,
        /// Which of the launcher's processes it claims to be.
        local_rank: Option<u32>,
    },
    /// A worker knows its data and its device.
    Scanned {
        /// Which.
        worker: WorkerId,
        /// What it found.
        scan: Scan,
    },
    /// A worker decodes.
    Preparing {
        /// Which.
        worker: WorkerId,
        /// Images decoded.
        done: u32,
    },
    /// A worker has decoded its images.
    Prepared {
        /// Which.
        worker: WorkerId,
        /// Files that did not decode, with the decoder's error.
        bad: Vec<(u32, String)>,
    },
    /// Rank 0 listens for the other ranks.
    StoreListening {
        /// Rank 0's session.
        worker: WorkerId,
        /// The generation that it listens for.
        generation: u64,
        /// Where.
        address: String,
    },
    /// A worker is in the process group, with the state of the source rank.
    GroupReady {
        /// Which.
        worker: WorkerId,
        /// The group's generation.
        generation: u64,
    },
    /// A rank has made steps.
    Step {
        /// Its session.
        worker: WorkerId,
        /// Its report.
        report: StepReport,
    },
    /// A rank has finished an epoch, with its part of the validation.
    EpochDone {
        /// Its session.
        worker: WorkerId,
        /// Its report.
        report: EpochReport,
    },
    /// The best weights of this epoch are durable.
    BestStored {
        /// From 1.
        epoch: u32,
    },
    /// A checkpoint is durable.
    CheckpointStored {
        /// Where in the run it is.
        position: Position,
    },
    /// The answer to [`Action::FindCheckpoint`].
    CheckpointFound {
        /// The newest valid checkpoint.
        position: Option<Position>,
    },
    /// A worker is alive.
    Heartbeat {
        /// Which.
        worker: WorkerId,
        /// What it does.
        heartbeat: Heartbeat,
    },
    /// A worker has left a generation.
    GenerationAborted {
        /// Which.
        worker: WorkerId,
        /// The generation.
        generation: u64,
        /// The state that it retains.
        retained: Option<Position>,
    },
    /// A worker was asked to end.
    Draining {
        /// Which.
        worker: WorkerId,
    },
    /// A worker has done what [`Command::Finish`] told it.
    Finished {
        /// Which.
        worker: WorkerId,
        /// The generation that the command named.
        generation: u64,
    },
    /// A worker cannot go on.
    Failed {
        /// Which.
        worker: WorkerId,
        /// What failed.
        kind: FailureKind,
        /// Its own words.
        message: String,
    },
    /// A worker does not read its commands, and its session was cut off.
    NotReading {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's session broke.
    Lost {
        /// Which.
        worker: WorkerId,
    },
    /// The launcher started a process.
    ProcessStarted {
        /// Which of its processes.
        local_rank: u32,
        /// The operating system's number.
        pid: u32,
    },
    /// A process of the launcher ended.
    ProcessExited {
        /// Which of its processes.
        local_rank: u32,
        /// The operating system's number.
        pid: u32,
        /// How.
        status: ProcessStatus,
    },
    /// The launcher could not start a process.
    LaunchFailed {
        /// Which of its processes.
        local_rank: u32,
        /// Its error.
        error: String,
    },
    /// Something that the run must keep could not be written.
    StoreFailed {
        /// The error.
        error: String,
    },
    /// SIGINT or SIGTERM.
    Interrupt,
    /// Time has passed; it comes several times a second.
    Tick,
}

/// What the core asks for, in the order in which it is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send a command to a worker.
    Send(WorkerId, Command),
    /// Tell the observers.
    Notify(Fact),
    /// Start a worker process, after ending what may still run under its local rank.
    Launch {
        /// Which of the launcher's processes.
        local_rank: u32,
    },
    /// Look for the newest valid checkpoint, after what is being written is written.
    FindCheckpoint,
    /// The last action of a run.
    End(Outcome),
}
