//! Why the run waits, refuses a worker, ends, or fails.

use std::time::Duration;

use super::{Loss, LossCause, MemberInfo, ProcessStatus, Span, WorkerId};
use crate::words::{count, list};

/// What a run without a process group waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// This many more workers.
    Workers {
        /// At least 1.
        missing: usize,
    },
    /// A survivor that has not left the aborted generation yet.
    Abort {
        /// The survivor.
        member: MemberInfo,
    },
    /// A draining member whose state no other member has.
    Drain {
        /// The draining member.
        member: MemberInfo,
    },
}

/// Why a worker cannot be a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalReason {
    /// Training is over.
    #[error("the run is ending")]
    RunEnding,
    /// The run has as many workers as it may have.
    #[error("the run already has {}, the maximum", count(*.limit, "worker"))]
    RunFull {
        /// The most workers.
        limit: usize,
    },
    /// Another member has the local rank.
    #[error("local rank {local_rank} is taken by {holder}")]
    LocalRankTaken {
        /// The local rank.
        local_rank: u32,
        /// The member that has it.
        holder: WorkerId,
    },
    /// The launcher did not start this process under that local rank.
    #[error("the launcher did not start process {pid} as local rank {local_rank}")]
    NotLaunched {
        /// The local rank.
        local_rank: u32,
        /// The process that claims it.
        pid: u32,
    },
    /// Its data is not the run's, or cannot be decoded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Its device does not fit the run's.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

/// What is wrong with the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Two data folders differ.
    #[error(
        "workers have different data: {known}, {other}; first difference: {}",
        .difference.as_deref().unwrap_or("(unknown)")
    )]
    Mismatch {
        /// What the run knows.
        known: DataFolder,
        /// What the worker has.
        other: DataFolder,
        /// The first path that only one of them has, or has with another size.
        difference: Option<String>,
    },
    /// A file of the resumed run's split is gone.
    #[error("{path}, which is part of the run's split, is missing")]
    Missing {
        /// Relative to the folder of classes.
        path: String,
    },
    /// A file that the run trains or validates on does not decode.
    #[error("{path}: {error}")]
    Undecodable {
        /// Relative to the folder of classes.
        path: String,
        /// The decoder's error.
        error: String,
    },
    /// Files do not decode, and `--strict-data` is on.
    #[error(
        "{path}: {error} (--strict-data is on; {} cannot be decoded)",
        count(*.files, "file")
    )]
    Strict {
        /// The first of them, relative to the folder of classes.
        path: String,
        /// The decoder's error.
        error: String,
        /// How many there are.
        files: usize,
    },
    /// Too few images decode to make a training and a validation set.
    #[error("{} can be decoded, but at least 2 are required", count(*.usable, "image"))]
    TooFewImages {
        /// How many do.
        usable: usize,
    },
    /// As a worker reported it.
    #[error("{0}")]
    Reported(String),
}

/// A data folder, as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFolder {
    /// The host that has it; `None` for what the run directory remembers.
    pub host: Option<String>,
    /// Its SHA-256 over paths and sizes.
    pub fingerprint: String,
}

/// What is wrong with a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Some workers compute on GPUs and others on CPUs.
    #[error(
        "a worker on {gpu} uses a GPU, but one on {cpu} uses the CPU; set --device cpu, or use \
         GPUs on every host"
    )]
    MixedDevices {
        /// A host whose worker computes on a GPU.
        gpu: String,
        /// A host whose worker computes on the CPU.
        cpu: String,
    },
    /// Two workers compute on one GPU.
    #[error(
        "a worker on {host} uses GPU {gpu_uuid}, which another on {holder} uses; start each with \
         a GPU of its own: worker --gpu N"
    )]
    SharedGpu {
        /// The host of the worker that came later.
        host: String,
        /// The host of the worker that came first.
        holder: String,
        /// As the driver names it.
        gpu_uuid: String,
    },
    /// The first local workers cannot be started: the launcher's error.
    #[error("{0}")]
    LaunchFailed(String),
    /// As a worker reported it.
    #[error("{0}")]
    Reported(String),
}

/// Why a worker has to end its session.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShutdownReason {
    /// It cannot be a member.
    #[error(transparent)]
    Refused(RefusalReason),
    /// It no longer is a member.
    #[error(transparent)]
    Removed(LossCause),
    /// The run is over.
    #[error("{}", .0.label())]
    Ended(StopReason),
    /// The run failed.
    #[error(transparent)]
    Failed(RunError),
}

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The validation loss did not improve for `patience` epochs.
    Patience,
    /// All epochs of the schedule are done.
    MaxEpochs,
    /// The loss became infinite or not a number.
    NonFiniteLoss,
    /// SIGINT or SIGTERM.
    Interrupted,
}

impl StopReason {
    /// The name in metrics, files and the journal.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Patience => "patience",
            Self::MaxEpochs => "max_epochs",
            Self::NonFiniteLoss => "non_finite_loss",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The pretrained weights: a worker's report.
    #[error("{0}")]
    Weights(String),
    /// A machine.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A local worker's process ended before it joined, and before anything was trained.
    #[error("local worker {local_rank} {status} before it joined")]
    ExitedEarly {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// How.
        status: ProcessStatus,
    },
    /// Too few workers are left, and no replacement is on its way.
    #[error(
        "{ready} of {} left; no replacement pending{}",
        count(*.required, "required worker"),
        .last.as_ref().map_or_else(String::new, |last| format!("; last loss: {last}"))
    )]
    TooFewWorkers {
        /// Workers that could train.
        ready: usize,
        /// `--min-workers`.
        required: usize,
        /// What was lost last.
        last: Option<Box<Loss>>,
    },
    /// Process groups break one after the other, although their members are alive.
    #[error(
        "{groups} process groups in a row broke before they completed a step; last failure: {last}"
    )]
    GroupsFailing {
        /// Groups in a row that broke before they completed a step.
        groups: u32,
        /// How the last one broke.
        last: Box<Loss>,
    },
    /// The best weights are lost: their holders are gone, or did not hand them over in time.
    #[error(
        "the best weights, of epoch {epoch}, did not arrive within --grace {} s; continue with \
         --resume, and a longer --grace if the network is slow",
        .grace.as_secs()
    )]
    BestWeightsLost {
        /// Their epoch, from 1.
        epoch: u32,
        /// `--grace`.
        grace: Duration,
    },
    /// The run was interrupted while no worker had the best weights, which are to be made again.
    #[error(
        "interrupted without the best weights, of epoch {epoch}, which no worker has; resume again \
         with --resume"
    )]
    BestWeightsAbsent {
        /// Their epoch, from 1.
        epoch: u32,
    },
    /// The run directory cannot be written: the error.
    #[error("{0}")]
    RunDirectory(String),
    /// A worker failed in itself before anything was trained.
    #[error("{member}: {message}")]
    WorkerDefect {
        /// Which.
        member: MemberInfo,
        /// Its own words.
        message: String,
    },
    /// The reports of an epoch do not add up to the epoch.
    #[error(
        "epoch {epoch} validated {validated} of {expected} samples; its steps: {}",
        list(.ledger)
    )]
    InconsistentEpoch {
        /// From 1.
        epoch: u32,
        /// Samples of the validation set that were reported.
        validated: u64,
        /// Samples of the validation set.
        expected: u64,
        /// Which generation made which steps.
        ledger: Vec<Span>,
    },
}

impl RunError {
    /// The local worker whose process explains the failure, if there is one.
    pub fn local_rank(&self) -> Option<u32> {
        match self {
            Self::TooFewWorkers { last, .. } => last.as_ref()?.local_rank(),
            Self::GroupsFailing { last, .. } => last.local_rank(),
            Self::ExitedEarly { local_rank, .. } => Some(*local_rank),
            Self::WorkerDefect { member, .. } => member.local_rank,
            _ => None,
        }
    }

    /// Whether its text says how that process ended.
    pub fn tells_exit(&self) -> bool {
        match self {
            Self::TooFewWorkers { last, .. } => last.as_ref().is_some_and(|last| last.tells_exit()),
            Self::GroupsFailing { last, .. } => last.tells_exit(),
            Self::ExitedEarly { .. } => true,
            _ => false,
        }
    }
}

/// How a run ended.
pub type Outcome = Result<StopReason, RunError>;
