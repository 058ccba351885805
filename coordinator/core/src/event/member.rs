//! Members of a run in messages: their identity, their location, and why they were lost.

use super::{Activity, FailureKind, Position, RefusalReason, WorkerId};

/// A member of the run, as logs, journal and page name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// The name of its session.
    pub worker: WorkerId,
    /// The machine that it runs on, as it reported it.
    pub host: String,
    /// Its rank in the current generation, if it is part of one.
    pub rank: Option<u32>,
    /// Which of the launcher's processes it is; `None` for a worker that others started.
    pub local_rank: Option<u32>,
}

/// Where in the run a member was when something happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// It scanned or decoded its data, or waited for a generation.
    Preparing,
    /// It was joining the process group of a new generation.
    Rendezvous,
    /// It had reported the steps up to here, and was in a later one.
    Training(Position),
    /// It had reported all training steps of this epoch, from 1.
    Validation {
        /// The epoch.
        epoch: u32,
    },
    /// It was leaving an aborted generation, after these steps.
    Aborting(Position),
    /// Training was over.
    Ending,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessStatus {
    /// It exited by itself with this code.
    Code(i32),
    /// This signal, by its Linux number, ended it.
    Signal(i32),
    /// The operating system did not report a status.
    Unknown,
}

/// Why a member is gone, or is evicted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LossCause {
    /// Its gRPC session broke.
    #[error("its session broke")]
    SessionBroke,
    /// The launcher saw its process end.
    #[error("its process {0}")]
    ProcessExited(ProcessStatus),
    /// It reported that it cannot continue.
    #[error("{message}")]
    Reported {
        /// What failed.
        kind: FailureKind,
        /// The worker's message.
        message: String,
    },
    /// It made no progress for longer than the stall timeout, and the others waited for it.
    #[error("{0}")]
    Stalled(Box<StallReport>),
    /// It was asked to end, and reported that.
    #[error("it was asked to end")]
    DrainRequested,
    /// Its process opened another session in place of this one.
    #[error("its process opened a new session")]
    NewSession,
    /// It did not read the commands that were sent to it.
    #[error("it does not read the coordinator's messages")]
    NotReading,
    /// It did not leave an aborted generation in time.
    #[error("it did not leave the aborted generation in time")]
    UnresponsiveToAbort,
    /// It reported samples of this epoch that it had not been assigned.
    #[error("it reported samples of epoch {epoch} that it was not assigned")]
    WrongSamples {
        /// The epoch, from 1.
        epoch: u32,
    },
}

/// A member that makes no progress.
#[derive(Debug, Clone, PartialEq)]
pub struct StallReport {
    /// The member; one without a rank came back or decodes.
    pub member: MemberInfo,
    /// What its training thread does.
    pub activity: Activity,
    /// Steps that it has completed in the epoch.
    pub step: u32,
    /// Seconds since its activity began.
    pub seconds: f64,
    /// The ranks that do not make progress either, if there are any.
    pub waiting: Option<WaitingRanks>,
}

/// Ranks that wait for a stalled one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingRanks {
    /// In the order of the members.
    pub ranks: Vec<u32>,
    /// What the first of them does.
    pub activity: Activity,
}

/// The last loss of a worker or a process group, for the message of a run that fails for lack of
/// workers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Loss {
    /// A member was lost, or its process group broke.
    #[error("{member} {location}: {cause}")]
    Member {
        /// Which.
        member: MemberInfo,
        /// Where it was.
        location: Location,
        /// Why.
        cause: LossCause,
    },
    /// A member that could not train was removed.
    #[error("{member}: {reason}")]
    Expelled {
        /// Which.
        member: MemberInfo,
        /// Why.
        reason: RefusalReason,
    },
    /// A local worker's process ended before it joined.
    #[error("local worker {local_rank} {status} before it joined")]
    ExitedEarly {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// How.
        status: ProcessStatus,
    },
    /// The process ended of a local worker whose session had broken.
    #[error("local worker {local_rank} {status}")]
    Exited {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// How.
        status: ProcessStatus,
    },
    /// A local worker's process could not be started.
    #[error("local worker {local_rank} cannot be started: {error}")]
    LaunchFailed {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// The launcher's error.
        error: String,
    },
}

impl Loss {
    /// The launcher's process that it is about, if it is one of those.
    pub fn local_rank(&self) -> Option<u32> {
        match self {
            Self::Member { member, .. } | Self::Expelled { member, .. } => member.local_rank,
            Self::ExitedEarly { local_rank, .. }
            | Self::Exited { local_rank, .. }
            | Self::LaunchFailed { local_rank, .. } => Some(*local_rank),
        }
    }

    /// Whether its text says how the process ended.
    pub fn tells_exit(&self) -> bool {
        match self {
            Self::Member { cause, .. } => matches!(cause, LossCause::ProcessExited(_)),
            Self::ExitedEarly { .. } | Self::Exited { .. } => true,
            Self::Expelled { .. } | Self::LaunchFailed { .. } => false,
        }
    }
}

/// What broke a process group. Of several causes the greatest is reported: the death of a member
/// breaks the group of the others, who may report that first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutageCause {
    /// Collectives failed among members that are alive.
    GroupBroke,
    /// A member's session broke.
    WorkerDied,
    /// The coordinator evicted a member that stalled, or failed in itself.
    WorkerEvicted,
}

impl OutageCause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::GroupBroke, Self::WorkerDied, Self::WorkerEvicted];

    /// The name in metrics and traces.
    pub fn label(self) -> &'static str {
        match self {
            Self::GroupBroke => "group_broke",
            Self::WorkerDied => "worker_died",
            Self::WorkerEvicted => "worker_evicted",
        }
    }
}
