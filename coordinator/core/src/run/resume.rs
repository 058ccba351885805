//! Continues from what is durable or retained: a resumed run, and a rollback.

use super::parts::{BestWeights, Checkpoints, Dataset, History, LocalWorkers};
use super::{Recipe, Run};
use crate::event::{Fact, Position};

/// The contents of a run directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Of the data that the run was started with.
    pub fingerprint: String,
    /// Paths of the training set, relative to the folder of classes.
    pub train: Vec<String>,
    /// Paths of the validation set, relative to the folder of classes.
    pub validation: Vec<String>,
    /// Validation loss of each validated epoch, in order.
    pub validation_losses: Vec<f64>,
    /// The epoch of the stored best weights.
    pub best_epoch: Option<u32>,
    /// The newest valid checkpoint.
    pub checkpoint: Option<Position>,
    /// The last generation that is on record.
    pub generation: u64,
}

impl Run {
    /// A run that another coordinator began, but of which nothing was trained.
    pub fn inherit(recipe: Recipe) -> Self {
        let (count, max_restarts) = (recipe.local_ranks, recipe.max_restarts);
        Self {
            local_workers: LocalWorkers::new(count, max_restarts, true),
            ..Self::new(recipe)
        }
    }

    /// A run that continues where `resumed` says it was, or further, if workers come back that
    /// still retain a state.
    pub fn resume(recipe: Recipe, resumed: Resumed) -> Self {
        let losses = &resumed.validation_losses;
        let history = History::new(recipe.stopping, recipe.schedule.epochs, losses);
        Self {
            position: Position::start_of(history.epochs() + 1),
            history,
            dataset: Dataset::remembered(resumed.fingerprint, resumed.train, resumed.validation),
            generation: resumed.generation,
            best_weights: BestWeights::new(resumed.best_epoch),
            checkpoints: Checkpoints::new(recipe.checkpoints, resumed.checkpoint),
            initialized: true,
            stepped: true,
            resumed: true,
            ..Self::inherit(recipe)
        }
    }

    /// The same position, but for that after a validated epoch, which is the start of the next.
    pub(super) fn normal(&self, position: Position) -> Position {
        let validated = position.epoch <= self.history.epochs();
        if validated && position.completed >= self.steps_of_an_epoch() {
            Position::start_of(position.epoch + 1)
        } else {
            position
        }
    }

    /// Where the run can go on with a state that a member retains.
    pub(super) fn restart_of(&self, retained: Position) -> Option<Position> {
        let at = match self.best_is_missing() {
            true => retained,
            false => self.normal(retained),
        };
        self.is_usable(at).then_some(at)
    }

    /// Whether the run can go on from a state: it is of this run's past, and, where the best
    /// weights are missing, comes before them, so that they are made again.
    pub(super) fn is_usable(&self, position: Position) -> bool {
        let steps = self.steps_of_an_epoch();
        let best = self.history.best().filter(|_| self.best_is_missing());
        let last = best.map_or(self.history.epochs() + 1, |best| best.epoch);
        position.epoch <= last && position.completed <= steps
    }

    /// How far the run is known to have come.
    pub(super) fn known(&self) -> Position {
        Position {
            epoch: self.history.epochs() + 1,
            completed: self.ledger.end(),
        }
    }

    /// Moves the run to the state that the next generation begins with.
    pub(super) fn move_to(&mut self, position: Position) {
        let known = self.known();
        if position < known {
            self.history.truncate(position.epoch - 1);
            self.best_weights.forget_since(position.epoch);
            self.checkpoints.discard_after(position);
            self.notify(Fact::RolledBack {
                position,
                stopping: self.history.standing(),
            });
        }
        if position.epoch != known.epoch {
            self.ledger.clear();
        }
        self.ledger.rewind(position.completed, self.generation);
        self.position = position;
    }
}
