//! What observers should know of a run. Values only.

use super::{
    Backend, ComputeType, Location, LossCause, MemberInfo, OutageCause, Phases, Position,
    ProcessStatus, RefusalReason, StallReport, StepReport, StopReason, WaitReason, WorkerId,
};
use crate::early_stopping::Standing;
use crate::schedule::GroupLrs;
use crate::split::Split;

/// A file that does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// Relative to the folder of classes.
    pub path: String,
    /// The decoder's error.
    pub error: String,
}

/// A row of the ledger: these steps of an epoch were made once, by this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The generation.
    pub generation: u64,
    /// Its ranks; 0 for steps that a former coordinator saw.
    pub world_size: u32,
    /// The first step, from 0.
    pub first: u32,
    /// The step after the last one.
    pub end: u32,
}

/// A finished epoch, as the run directory keeps it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FinishedEpoch {
    /// From 1.
    pub epoch: u32,
    /// Mean cross entropy over the training samples.
    pub train_loss: f64,
    /// Mean cross entropy over the validation samples.
    pub validation_loss: f64,
    /// Top-1 accuracy over the validation samples, 0 to 1.
    pub validation_accuracy: f64,
    /// The learning rates.
    pub lrs: GroupLrs,
    /// Training samples per second over all ranks of the last generation.
    pub images_per_second: f64,
    /// Seconds of each phase, as the mean over the ranks.
    pub phases: Phases,
    /// Wall seconds from the last generation's first step to the end of the validation.
    pub seconds: f64,
    /// Ranks at the end of the epoch.
    pub world_size: u32,
    /// Generation at the end of the epoch.
    pub generation: u64,
    /// Which generation made which steps; together they are all, each once.
    pub ledger: Vec<Span>,
}

/// The holder of a rank, while a generation lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The name of its session.
    pub worker: WorkerId,
    /// Its machine.
    pub host: String,
    /// `cpu`, or `cuda:` and an index.
    pub device: String,
    /// The GPU as the driver names it; empty on a CPU.
    pub gpu_uuid: String,
}

/// What happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A worker became a member.
    Joined {
        /// The new member, which has no rank yet.
        member: MemberInfo,
        /// Members, with it.
        members: usize,
        /// Members that the run is configured to have.
        expected: usize,
    },
    /// A member was lost, and the run continues.
    Lost {
        /// Which, with the rank that it had.
        member: MemberInfo,
        /// Where it was.
        location: Location,
        /// Why.
        cause: LossCause,
    },
    /// A member ended because it was asked to.
    Left {
        /// Which.
        member: MemberInfo,
    },
    /// The machine of a worker has a problem, with which the worker can continue.
    Warned {
        /// The machine.
        host: String,
        /// The worker's message.
        warning: String,
    },
    /// The workers of a machine compute with more threads than it has processors.
    TooManyThreads {
        /// The machine.
        host: String,
        /// Workers that share processors there.
        workers: u32,
        /// Threads of all of them.
        threads: u32,
        /// Processors that they have between them.
        processors: u32,
    },
    /// A worker was refused, or expelled.
    Refused {
        /// Which.
        member: MemberInfo,
        /// Why.
        reason: RefusalReason,
    },
    /// The process ended of a local worker that was lost when its session broke.
    Exited {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// How.
        status: ProcessStatus,
    },
    /// A local worker cannot be started; the others continue without it.
    LaunchFailed {
        /// Which of the launcher's processes.
        local_rank: u32,
        /// The launcher's error.
        error: String,
    },
    /// A member makes no progress.
    Stalled(StallReport),
    /// What a run without a process group waits for; reported when it changes.
    Waiting(WaitReason),
    /// The run continues from an older state: the epochs from there on are trained again.
    RolledBack {
        /// The state.
        position: Position,
        /// Early stopping, after the epochs before.
        stopping: Standing,
    },
    /// A process group works again after one was lost.
    Recovered {
        /// What broke the former one.
        cause: OutageCause,
        /// The new generation.
        generation: u64,
        /// The state from which it continues.
        position: Position,
        /// Its ranks.
        world_size: usize,
        /// Seconds since the loss.
        seconds: f64,
        /// Reported steps that have to be made again.
        steps_lost: u32,
    },
    /// Progress of the decoding.
    Preparing {
        /// Images decoded.
        done: usize,
        /// Images to decode.
        total: usize,
    },
    /// These files do not decode, and are left out.
    BadFiles(Vec<BadFile>),
    /// The training and validation sets are known.
    SplitReady {
        /// Of the data folder.
        fingerprint: String,
        /// Class names; the position is the label.
        classes: Vec<String>,
        /// Paths relative to the folder of classes; the position is the sample.
        files: Vec<String>,
        /// Which samples train, and which validate.
        split: Split,
    },
    /// All ranks of a generation are in its process group.
    GroupFormed {
        /// The generation.
        generation: u64,
        /// The worker of each rank.
        ranks: Vec<Ranked>,
        /// What its collectives run over.
        backend: Backend,
        /// What it computes in.
        precision: ComputeType,
    },
    /// A generation begins an epoch, or continues one.
    EpochStarted {
        /// From 1.
        epoch: u32,
        /// Steps of it that were made before.
        completed: u32,
        /// Its steps.
        steps: u32,
        /// The generation's ranks.
        world_size: u32,
        /// The learning rates.
        lrs: GroupLrs,
    },
    /// A rank has made steps.
    Step {
        /// The rank.
        rank: u32,
        /// What it reported.
        report: StepReport,
    },
    /// An epoch is finished and validated.
    EpochEnded {
        /// What the run directory keeps of it.
        epoch: FinishedEpoch,
        /// Samples of the validation set.
        validated: u64,
        /// Seconds of each phase, by rank.
        ranks: Vec<Phases>,
        /// Early stopping, after this epoch.
        stopping: Standing,
    },
    /// Training ends.
    Stopping(StopReason),
    /// The run ends without the last checkpoint that it asked for.
    CheckpointMissed,
}
