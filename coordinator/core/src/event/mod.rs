//! What the core is told, what it asks for, and what it wants known. Values only.

mod command;
mod fact;
mod report;

use std::fmt;

pub use command::{Command, Origin, SaveState};
pub use fact::{Cause, Fact, FinishedEpoch, Outcome, Ranked, RunError, Span, StopReason};
pub use report::{
    Activity, EpochReport, Heartbeat, Phases, RetainedState, Scan, StepReport, ValidationSum,
};

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
        /// The same for all sessions of a process, and no other's.
        instance: u64,
        local_rank: Option<u32>,
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
    GenerationAborted {
        worker: WorkerId,
        generation: u64,
        retained: Option<Position>,
    },
    /// It was asked to end.
    Draining {
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
        local_rank: u32,
        pid: u32,
    },
    /// It ended; by a signal, or of itself.
    ProcessExited {
        local_rank: u32,
        pid: u32,
        signalled: bool,
        status: String,
    },
    /// A process could not be started.
    LaunchFailed {
        local_rank: u32,
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

/// What the core asks for.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Send(WorkerId, Command),
    Notify(Fact),
    /// Start a worker process in this slot, after ending what may still run there.
    Launch {
        local_rank: u32,
    },
    /// Look for the newest whole checkpoint, after what is being written is written.
    FindCheckpoint,
    /// The last action of a run.
    End(Outcome),
}
