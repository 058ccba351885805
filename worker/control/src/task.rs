//! The interface between the control flow and what performs it: tasks, how they come out, and the
//! state that they change.

use std::sync::Arc;

use crate::protocol::{
    Assignment, BadFile, EpochPlan, Phases, Position, Prepare, Report, RetainedState, SaveState,
    TrainError, ValidationSum,
};

/// What all ranks hold alike: weights, optimizer, position. It outlives the group in which it was
/// trained.
pub trait State {
    /// A copy of the weights.
    type Weights;
    /// How far it has come.
    fn position(&self) -> Position;
    /// Loss over all samples of the epoch so far, of all ranks.
    fn loss_sum(&self) -> f64;
    /// Moves on to the start of the next epoch.
    fn next_epoch(&mut self);
    /// Takes back what a step that broke has changed.
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

/// What is to be done next. Each but [`Wait`](Self::Wait) is answered by [`Control::done`](crate::Control::done).
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
    Meet(Assignment),
    /// Make a state, from the pretrained weights or to be overwritten: [`Done::Created`].
    Create {
        /// Whether the weights matter.
        pretrained: bool,
    },
    /// Replace the state by the run directory's checkpoint at this position, all or nothing.
    LoadCheckpoint(Position),
    /// Make all ranks hold the source's state. A retained state stays whole until all of the
    /// other has arrived.
    Share(Assignment),
    /// Train one step: [`Done::Stepped`].
    Step {
        /// The epoch.
        plan: Arc<EpochPlan>,
        /// Which step of the plan, from 0.
        index: usize,
    },
    /// Make the running statistics of all ranks equal to their mean.
    AverageBatchNorm,
    /// Evaluate one chunk: [`Done::Validated`].
    Validate {
        /// The epoch.
        plan: Arc<EpochPlan>,
        /// Which chunk of the plan.
        index: usize,
    },
    /// Copy the weights, which are the best so far: [`Done::Copied`].
    CopyWeights,
    /// Upload what is asked for; it is there.
    Upload(SaveState),
    /// Upload predictions of these samples by the best weights. A failure ends nothing.
    Show(Vec<u32>),
    /// Send this to the coordinator.
    Report(Report),
    /// End the thread.
    End(Result<(), TrainError>),
}

/// How a task came out.
#[derive(Debug)]
pub enum Done<S: State> {
    /// It is done.
    Plain,
    /// Images are decoded, but for these.
    Prepared(Vec<BadFile>),
    /// A state to fill.
    Created(S),
    /// The state has made a step.
    Stepped {
        /// The rank's part, by samples, of the loss of the global batch.
        loss_sum: f64,
        /// Wall seconds.
        seconds: f64,
        /// Where they went.
        phases: Phases,
    },
    /// A chunk is evaluated.
    Validated {
        /// Its sums.
        sum: ValidationSum,
        /// Wall seconds.
        seconds: f64,
    },
    /// The copy.
    Copied(S::Weights),
}
