//! The phases of a run, and what each needs to know.

use std::collections::BTreeSet;

use super::Now;
use crate::WorkerId;
use crate::event::{Origin, Position, StopReason, WaitReason};
use crate::schedule::GroupLrs;

/// Where a run is; see the diagram in [`super`].
#[derive(Debug)]
pub(super) enum Phase {
    /// Workers join and report their data.
    Gathering,
    /// Workers decode.
    Preparing,
    /// No generation is live.
    Assembling(Assembling),
    /// The members of a generation form its process group.
    Forming(Forming),
    /// A generation makes steps, and validates.
    Training(Training),
    /// Training is over.
    Finishing(Finishing),
    /// The run is over.
    Closed,
}

/// The members of the last generation leave it, and others may come.
#[derive(Debug)]
pub(super) struct Assembling {
    /// When the last generation was aborted.
    pub(super) since: Now,
    /// Workers that others had started were lost, and may be started again.
    pub(super) absent: usize,
    /// The search for a checkpoint to go on from.
    pub(super) checkpoint: CheckpointLookup,
    /// What was last reported as missing.
    pub(super) waiting: Option<WaitReason>,
}

/// Whether the run directory was searched for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CheckpointLookup {
    /// It was not.
    NotYet,
    /// The answer has not come.
    Asked,
    /// The newest valid one.
    Found(Option<Position>),
}

/// A generation that is not working yet.
#[derive(Debug)]
pub(super) struct Forming {
    /// Where its state comes from.
    pub(super) origin: Origin,
    /// The rank that gives its state to all.
    pub(super) source: u32,
    /// The other ranks know where rank 0 listens.
    pub(super) announced: bool,
}

/// A generation at work on an epoch.
#[derive(Debug)]
pub(super) struct Training {
    /// Steps of the epoch.
    pub(super) steps: u32,
    /// Steps that the ranks may complete.
    pub(super) granted: u32,
    /// The epoch's learning rates.
    pub(super) lrs: GroupLrs,
    /// When the plans were sent.
    pub(super) started: Now,
    /// When all ranks had made all steps.
    pub(super) trained: Option<Now>,
}

/// The orderly end.
#[derive(Debug)]
pub(super) struct Finishing {
    /// Why training is over.
    pub(super) reason: StopReason,
    /// When the grace ends.
    pub(super) until: Now,
    /// Whether what was being written when the best weights were missed is written by now.
    pub(super) settled: CheckpointLookup,
    /// The workers that were sent `Finish` and have not finished, once any was.
    pub(super) waits: Option<BTreeSet<WorkerId>>,
    /// The one of them that was asked for predictions.
    pub(super) prediction_worker: Option<WorkerId>,
}

/// Why no more steps are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The world changes at the next step boundary.
    Regroup,
    /// Training ends at the next step boundary.
    Stop(StopReason),
}
