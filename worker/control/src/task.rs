//! The interface between the control flow and the code that performs it: tasks, their results,
//! and the state that they change.

use std::sync::Arc;

use crate::protocol::{
    Assignment, BadFile, EpochPlan, Phases, Position, Prepare, Report, RetainedState, SaveState,
    TrainError, ValidationSum,
};

/// The replicated state of a rank: weights, optimizer, position. It outlives the process group in
/// which it was trained.
pub trait State {
    /// A copy of the weights.
    type Weights;
    /// How far it has come.
    fn position(&self) -> Position;
    /// Loss over all samples of the epoch so far, of all ranks.
    fn loss_sum(&self) -> f64;
    /// Moves on to the start of the next epoch.
    fn next_epoch(&mut self);
    /// Reverts the changes of a step that failed.
    fn undo_step(&mut self);
}

/// The weights after the best epoch so far.
#[derive(Debug, Clone)]
pub struct Best<W> {
    /// The epoch.
    pub epoch: u32,
    /// Mean cross entropy over the validation set.
    pub validation_loss: f64,
    /// The copy.
    pub weights: W,
}

/// The next task. [`Control::done`](crate::Control::done) takes the result of each but
/// [`Wait`](Self::Wait).
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Wait until the inbox changes.
    Wait,
    /// Find data and device, and report them with what is retained.
    Scan(RetainedState),
    /// Decode images: [`Done::Prepared`].
    Prepare(Prepare),
    /// Leave the process group, if there is one.
    Leave,
    /// Form the process group; rank 0 reports where its store listens.
    Rendezvous(Assignment),
    /// Create a state, from the pretrained weights or to be overwritten: [`Done::Created`].
    Create {
        /// Whether to load the pretrained weights.
        pretrained: bool,
    },
    /// Replace the state by the run directory's checkpoint at this position, all or nothing.
    LoadCheckpoint(Position),
    /// Broadcast the source's state to all ranks. A retained state stays valid until all of the
    /// other has arrived.
    Broadcast(Assignment),
    /// Train one step: [`Done::Stepped`]. A device may still work on it when the task is done.
    Step {
        /// The epoch.
        plan: Arc<EpochPlan>,
        /// Which step of the plan, from 0.
        index: usize,
    },
    /// Make the running statistics of all ranks equal to their mean.
    AverageBatchNorm,
    /// Evaluate one chunk: [`Done::Validated`]. Here, too, a device may still work on it.
    Validate {
        /// The epoch.
        plan: Arc<EpochPlan>,
        /// Which chunk of the plan.
        index: usize,
    },
    /// Wait for all results that are still to come, of steps or of chunks: done as their tasks are.
    Settle,
    /// Copy the weights, which are the best so far: [`Done::Copied`].
    CopyWeights,
    /// Upload this state, which the worker has.
    Upload(SaveState),
    /// Upload predictions of these samples by the best weights. A failure ends nothing.
    Predict(Vec<u32>),
    /// Send this to the coordinator.
    Report(Report),
    /// End the thread.
    End(Result<(), TrainError>),
}

/// The state has made a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stepped {
    /// The rank's part, by samples, of the loss of the global batch.
    pub loss_sum: f64,
    /// Wall seconds.
    pub seconds: f64,
    /// The same seconds, by phase.
    pub phases: Phases,
}

/// The result of a task.
#[derive(Debug)]
pub enum Done<S: State> {
    /// Done, without a value.
    Plain,
    /// Images are decoded, but for these.
    Prepared(Vec<BadFile>),
    /// A state to fill.
    Created(S),
    /// The results of this step, and of those before, that are known by now; in order.
    Stepped(Vec<Stepped>),
    /// Chunks are evaluated.
    Validated {
        /// The sums that are known by now, in order.
        sums: Vec<ValidationSum>,
        /// Wall seconds.
        seconds: f64,
    },
    /// The copy.
    Copied(S::Weights),
}
