//! The steps that a simulated state consists of, and those of a run without faults.

use std::fmt;
use std::rc::Rc;

use super::wire::to_worker;
use crate::Recipe;
use crate::early_stopping::{Best, EarlyStopping};
use crate::event::{Position, StopReason};
use crate::random::SplitMix64;
use crate::shard::epoch_order;
use crate::split::Split;

/// A state: where it stands, and every step that made it.
#[derive(Clone)]
pub(super) struct State {
    pub(super) position: Position,
    /// Depends on every sample of every step, and on their order.
    pub(super) mark: u64,
    /// A step is in progress: its changes have to be reverted if it fails.
    pub(super) in_step: bool,
    pub(super) loss_sum: f64,
    past: Option<Rc<Step>>,
}

struct Step {
    made: Position,
    samples: Rc<[u32]>,
    before: Option<Rc<Step>>,
}

impl State {
    pub(super) fn fresh() -> Self {
        Self {
            position: Position::start_of(1),
            mark: 0,
            in_step: false,
            loss_sum: 0.0,
            past: None,
        }
    }

    /// A state that is yet to be filled; no run may continue from it.
    pub(super) fn blank() -> Self {
        Self {
            mark: u64::MAX,
            ..Self::fresh()
        }
    }

    pub(super) fn apply(&mut self, samples: &[u32]) {
        self.position.completed += 1;
        let Position { epoch, completed } = self.position;
        let keys = [self.mark, epoch.into(), completed.into()];
        let keys = keys.into_iter().chain(samples.iter().map(|s| (*s).into()));
        self.mark = SplitMix64::keyed(&keys.collect::<Vec<u64>>()).next_u64();
        self.in_step = false;
        self.past = Some(Rc::new(Step {
            made: self.position,
            samples: samples.into(),
            before: self.past.take(),
        }));
    }
}

impl worker_control::State for State {
    /// The mark.
    type Weights = u64;

    fn position(&self) -> worker_control::Position {
        to_worker(self.position)
    }

    fn loss_sum(&self) -> f64 {
        self.loss_sum
    }

    fn next_epoch(&mut self) {
        self.position = Position::start_of(self.position.epoch + 1);
    }

    fn undo_step(&mut self) {
        self.in_step = false;
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = Vec::new();
        let mut at = self.past.as_ref();
        while let Some(step) = at {
            steps.push(format!("{}: {:?}", step.made, step.samples));
            at = step.before.as_ref();
        }
        steps.reverse();
        write!(f, "a state at {} after {steps:#?}", self.position)
    }
}

/// A run without faults, whose result every other run must have.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) split: Split,
    pub(super) steps: u32,
    /// The samples of each step of each epoch.
    pub(super) batches: Vec<Vec<Vec<u32>>>,
    /// The mark before the first and after each step, of each epoch.
    marks: Vec<Vec<u64>>,
    pub(super) validation_losses: Vec<f64>,
    pub(super) best: Option<Best>,
    pub(super) reason: StopReason,
    /// From this step on, no loss is a number.
    poison: Option<Position>,
}

impl Reference {
    pub(super) fn new(recipe: &Recipe, usable: &[u32], poison: Option<Position>) -> Self {
        let split = Split::new(usable, recipe.validation_fraction, recipe.seed)
            .expect("there are enough samples");
        let mut reference = Self {
            steps: split.train.len().div_ceil(recipe.global_batch) as u32,
            batches: Vec::new(),
            marks: Vec::new(),
            validation_losses: Vec::new(),
            best: None,
            reason: StopReason::MaxEpochs,
            poison,
            split,
        };
        let mut state = State::fresh();
        let mut stopping = EarlyStopping::new(recipe.stopping);
        let mut open = true;
        for epoch in 1..=recipe.schedule.epochs {
            let order = epoch_order(&reference.split.train, recipe.seed, epoch);
            let batches: Vec<Vec<u32>> = order
                .chunks(recipe.global_batch)
                .map(<[u32]>::to_vec)
                .collect();
            let mut marks = vec![state.mark];
            for batch in &batches {
                state.apply(batch);
                marks.push(state.mark);
            }
            reference.batches.push(batches);
            reference.marks.push(marks);
            if open {
                let loss = reference.loss(&state);
                stopping.observe(epoch, loss);
                reference.validation_losses.push(loss);
                if !loss.is_finite() {
                    // Its last epoch may end before, at the step itself.
                    reference.reason = StopReason::NonFiniteLoss;
                    open = false;
                } else if stopping.is_out_of_patience() {
                    reference.reason = StopReason::Patience;
                    open = false;
                }
            }
            worker_control::State::next_epoch(&mut state);
        }
        reference.best = stopping.best();
        reference
    }

    /// The mark that a state has at `position`.
    pub(super) fn mark(&self, position: Position) -> Option<u64> {
        let marks = self.marks.get(position.epoch as usize - 1)?;
        marks.get(position.completed as usize).copied()
    }

    pub(super) fn has_nan_loss(&self, position: Position) -> bool {
        self.poison.is_some_and(|poison| position >= poison)
    }

    /// The validation loss of a state: a number from few, so that some epochs are equally good.
    pub(super) fn loss(&self, state: &State) -> f64 {
        if self.has_nan_loss(state.position) {
            return f64::NAN;
        }
        SplitMix64::keyed(&[state.mark]).below(8) as f64 / 8.0
    }

    /// Early stopping after the first losses.
    pub(super) fn replay(recipe: &Recipe, validation_losses: &[f64]) -> EarlyStopping {
        let mut stopping = EarlyStopping::new(recipe.stopping);
        for (loss, epoch) in validation_losses.iter().zip(1..) {
            stopping.observe(epoch, *loss);
        }
        stopping
    }
}
