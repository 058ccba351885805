//! Going on from what is durable: a resumed run, and a run all of whose workers are gone.

use std::collections::HashMap;

use super::{Assembling, CheckpointLookup, Now, Phase, Run};
use crate::Recipe;
use crate::early_stopping::EarlyStopping;
use crate::event::{Action, Command, DataError, Fact, Position, SaveState, Span, WorkerId};
use crate::split::Split;

/// What a run directory remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Of the data that the run was started with.
    pub fingerprint: String,
    /// Paths of the training set, relative to the folder of classes.
    pub train: Vec<String>,
    /// Likewise.
    pub validation: Vec<String>,
    /// Validation loss of each judged epoch, in order.
    pub validation_losses: Vec<f64>,
    /// The epoch of the stored best weights.
    pub best_epoch: Option<u32>,
    /// The newest whole checkpoint.
    pub checkpoint: Option<Position>,
    /// The last generation that is on record.
    pub generation: u64,
}

impl Run {
    /// A run that another coordinator began, but of which nothing was trained.
    pub fn inherit(recipe: Recipe) -> Self {
        Self {
            inherited: true,
            ..Self::new(recipe)
        }
    }

    /// A run that goes on where `resumed` says it stood, or further, if workers come back that
    /// still hold a state.
    pub fn resume(recipe: Recipe, resumed: Resumed) -> Self {
        let mut run = Self::inherit(recipe);
        run.validation_losses.clone_from(&resumed.validation_losses);
        run.position = Position::start_of(resumed.validation_losses.len() as u32 + 1);
        run.fingerprint = Some(resumed.fingerprint.clone()).filter(|text| !text.is_empty());
        run.generation = resumed.generation;
        run.best_stored = resumed.best_epoch;
        run.durable = resumed.checkpoint;
        run.initialized = true;
        run.resumed = Some(resumed);
        run.replay();
        run
    }

    /// The rule's memory is a function of the losses it was shown.
    fn replay(&mut self) {
        self.stopping = EarlyStopping::new(self.recipe.stopping);
        for (loss, epoch) in self.validation_losses.iter().zip(1..) {
            self.stopping.observe(epoch, *loss);
        }
    }

    /// The split of a resumed run, once the files are known.
    pub(super) fn restore_split(&mut self) -> Result<(), DataError> {
        let Some(resumed) = &self.resumed else {
            return Ok(());
        };
        let index: HashMap<&str, u32> = (self.files.iter().zip(0..))
            .map(|((path, _), at)| (path.as_str(), at))
            .collect();
        let find = |paths: &[String]| -> Result<Vec<u32>, DataError> {
            let find = |path: &String| {
                let missing = || DataError::Missing { path: path.clone() };
                index.get(path.as_str()).copied().ok_or_else(missing)
            };
            paths.iter().map(find).collect()
        };
        let split = Split {
            train: find(&resumed.train)?,
            validation: find(&resumed.validation)?,
        };
        self.split = Some(split);
        Ok(())
    }

    /// Whether the best epoch's weights are in the run directory. Those of a later one are as
    /// good: the run went back over that epoch, and is about to make it again.
    pub(super) fn best_is_safe(&self) -> bool {
        let best = self.stopping.best();
        best.is_none_or(|best| self.best_stored >= Some(best.epoch))
    }

    /// The best epoch's weights are neither stored nor held by anybody.
    pub(super) fn best_is_missing(&self) -> bool {
        !self.best_is_safe() && self.best_holder().is_none()
    }

    fn best_holder(&self) -> Option<WorkerId> {
        let best = self.stopping.best()?.epoch;
        let mut members = self.members.iter();
        let holder = members.find(|(_, member)| member.best == Some(best));
        holder.map(|(id, _)| *id)
    }

    /// Asks a worker that still holds them for the best weights, if they are not stored. No
    /// holder may be in the middle of an epoch, which the order would end.
    pub(super) fn ask_for_best(&mut self, out: &mut Vec<Action>) {
        if let Some(worker) = self.best_holder() {
            self.ask_for_best_of(worker, out);
        }
    }

    fn ask_for_best_of(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if self.best_is_safe() || self.awaited_best.is_some() {
            return;
        }
        if let Some(best) = self.stopping.best() {
            self.awaited_best = Some((best.epoch, worker));
            let order = Command::SaveState(SaveState::Best(best.epoch));
            out.push(Action::Send(worker, order));
        }
    }

    /// Whether the best weights are to come from this worker, which has left its group. It is
    /// asked for them, unless others hold them too.
    pub(super) fn gives_the_best(&mut self, worker: WorkerId, out: &mut Vec<Action>) -> bool {
        let best = self.stopping.best().map(|best| best.epoch);
        let holds = |member: &super::Member| best.is_some() && member.best == best;
        let mut others = self.members.values().filter(|member| !member.draining);
        let only_here = self.members.get(&worker).is_some_and(holds) && !others.any(holds);
        if only_here {
            self.ask_for_best_of(worker, out);
        }
        self.awaited_best.is_some_and(|(_, from)| from == worker)
    }

    pub(super) fn on_best_stored(&mut self, now: Now, epoch: u32, out: &mut Vec<Action>) {
        self.best_stored = Some(epoch);
        if self
            .awaited_best
            .is_some_and(|(awaited, _)| awaited == epoch)
        {
            self.awaited_best = None;
        }
        self.something_is_stored(now, out);
    }

    pub(super) fn on_checkpoint_stored(
        &mut self,
        now: Now,
        position: Position,
        out: &mut Vec<Action>,
    ) {
        self.durable = self.durable.max(Some(position));
        if let Phase::Assembling(Assembling { checkpoint, .. }) = &mut self.phase
            && matches!(checkpoint, CheckpointLookup::Found(_))
        {
            // There is a newer one than was found.
            *checkpoint = CheckpointLookup::NotYet;
        }
        let stored = self.normal(position);
        if self
            .awaited_checkpoint
            .is_some_and(|(_, from)| stored >= from)
        {
            self.awaited_checkpoint = None;
            self.checkpoint_due = false;
        }
        self.something_is_stored(now, out);
    }

    fn something_is_stored(&mut self, now: Now, out: &mut Vec<Action>) {
        self.ask_for_checkpoint(out);
        self.release_draining(now, out);
        self.go_on(now, out);
    }

    pub(super) fn on_checkpoint_found(
        &mut self,
        now: Now,
        position: Option<Position>,
        out: &mut Vec<Action>,
    ) {
        self.durable = position;
        match &mut self.phase {
            Phase::Assembling(Assembling { checkpoint, .. }) => {
                *checkpoint = CheckpointLookup::Found(position);
            }
            Phase::Finishing(finishing) => finishing.settled = CheckpointLookup::Found(position),
            _ => {}
        }
        self.go_on(now, out);
    }

    /// Whether a state is in the run directory, or a later one.
    pub(super) fn is_durable(&self, position: Position) -> bool {
        self.durable.is_some_and(|at| self.normal(at) >= position)
    }

    /// All of a judged epoch is none of the next.
    pub(super) fn normal(&self, position: Position) -> Position {
        let validation_losses = (position.epoch as usize) <= self.validation_losses.len();
        if validation_losses && position.completed >= self.steps_of_an_epoch() {
            Position::start_of(position.epoch + 1)
        } else {
            position
        }
    }

    /// Where the run can go on with a state that somebody holds.
    pub(super) fn restart_of(&self, retained: Position) -> Option<Position> {
        let at = if self.best_is_missing() {
            retained
        } else {
            self.normal(retained)
        };
        self.is_usable(at).then_some(at)
    }

    /// Whether the run can go on from a state: it is of this run's past, and, where the best
    /// weights are missing, comes before them, so that they are made again.
    pub(super) fn is_usable(&self, position: Position) -> bool {
        let steps = self.steps_of_an_epoch();
        let best = self.stopping.best().filter(|_| self.best_is_missing());
        let last = best.map_or(self.validation_losses.len() as u32 + 1, |best| best.epoch);
        position.epoch <= last && position.completed <= steps
    }

    /// How far the run is known to have come.
    pub(super) fn known(&self) -> Position {
        Position {
            epoch: self.validation_losses.len() as u32 + 1,
            completed: self.ledger.last().map_or(0, |span| span.end),
        }
    }

    /// Moves the run to the state that the next generation begins with.
    pub(super) fn move_to(&mut self, position: Position, out: &mut Vec<Action>) {
        let known = self.known();
        if position < known {
            self.validation_losses.truncate(position.epoch as usize - 1);
            self.replay();
            if self
                .awaited_best
                .is_some_and(|(epoch, _)| epoch >= position.epoch)
            {
                self.awaited_best = None;
            }
            if self.durable > Some(position) {
                self.durable = None;
            }
            out.push(Action::Notify(Fact::RolledBack {
                position,
                stopping: self.stopping.standing(),
            }));
        }
        if position.epoch != known.epoch {
            self.ledger.clear();
        }
        self.ledger.retain(|span| span.first < position.completed);
        if let Some(last) = self.ledger.last_mut() {
            last.end = last.end.min(position.completed);
        }
        let covered = self.ledger.last().map_or(0, |span| span.end);
        if covered < position.completed {
            // Steps of which this coordinator has no report, but whose state it goes on from.
            self.ledger.push(Span {
                generation: self.generation,
                world_size: 0,
                first: covered,
                end: position.completed,
            });
        }
        self.position = position;
    }
}
