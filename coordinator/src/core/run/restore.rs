//! Going on from what is durable: a resumed run, and a run all of whose workers are gone.

use std::collections::HashMap;

use super::{Assembling, Looked, Now, Phase, Run};
use crate::core::Recipe;
use crate::core::early_stopping::EarlyStopping;
use crate::core::event::{Action, Command, Keep, Notice, Position, RunError, Span};
use crate::core::split::Split;

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
    pub judged: Vec<f64>,
    /// The epoch of the stored best weights.
    pub best_epoch: Option<u32>,
    /// The newest whole checkpoint.
    pub checkpoint: Option<Position>,
    /// The last generation that is on record.
    pub generation: u64,
}

impl Run {
    /// A run that goes on where `resumed` says it stood, or further, if workers come back that
    /// still hold a state.
    pub fn resume(recipe: Recipe, resumed: Resumed) -> Self {
        let mut run = Self::new(recipe);
        run.judged.clone_from(&resumed.judged);
        run.position = Position::start_of(resumed.judged.len() as u32 + 1);
        run.fingerprint = Some(resumed.fingerprint.clone()).filter(|text| !text.is_empty());
        run.generation = resumed.generation;
        run.best_stored = resumed.best_epoch;
        run.durable = resumed.checkpoint;
        run.born = true;
        run.resumed = Some(resumed);
        run.replay();
        run
    }

    /// The rule's memory is a function of the losses it was shown.
    fn replay(&mut self) {
        self.stopping = EarlyStopping::new(self.recipe.stopping);
        for (loss, epoch) in self.judged.iter().zip(1..) {
            self.stopping.observe(epoch, *loss);
        }
    }

    /// The split of a resumed run, once the files are known.
    pub(super) fn restore_split(&mut self) -> Result<(), RunError> {
        let Some(resumed) = &self.resumed else {
            return Ok(());
        };
        let index: HashMap<&str, u32> = (self.files.iter().zip(0..))
            .map(|((path, _), at)| (path.as_str(), at))
            .collect();
        let find = |paths: &[String]| -> Result<Vec<u32>, RunError> {
            let find = |path: &String| {
                index.get(path.as_str()).copied().ok_or_else(|| {
                    RunError::Data(format!("{path}, on which the run was trained, is gone"))
                })
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

    /// Asks a worker that still holds them for the best weights, if they are not stored.
    pub(super) fn ask_for_best(&mut self, out: &mut Vec<Action>) {
        let Some(best) = self.stopping.best() else {
            return;
        };
        if self.best_stored == Some(best.epoch) || self.awaited_best.is_some() {
            return;
        }
        let holder = self
            .members
            .iter()
            .find(|(_, m)| m.best == Some(best.epoch));
        if let Some((&worker, _)) = holder {
            self.awaited_best = Some((best.epoch, worker));
            let order = Command::Keep(Keep::Best(best.epoch));
            out.push(Action::Send(worker, order));
        }
    }

    /// The best epoch's weights are neither stored nor held by anybody.
    pub(super) fn best_is_missing(&self) -> bool {
        self.stopping.best().is_some_and(|best| {
            self.best_stored != Some(best.epoch)
                && !self.members.values().any(|m| m.best == Some(best.epoch))
        })
    }

    pub(super) fn on_best_stored(&mut self, now: Now, epoch: u32, out: &mut Vec<Action>) {
        self.best_stored = self.best_stored.max(Some(epoch));
        if self
            .awaited_best
            .is_some_and(|(awaited, _)| awaited == epoch)
        {
            self.awaited_best = None;
        }
        self.ask_for_best(out);
        self.go_on_finishing(now, out);
    }

    pub(super) fn on_checkpoint_stored(
        &mut self,
        now: Now,
        position: Position,
        out: &mut Vec<Action>,
    ) {
        let position = self.normal(position);
        self.durable = self.durable.max(Some(position));
        self.awaited_checkpoint = None;
        self.last_checkpoint = (now, self.ledger.last().map_or(0, |span| span.end));
        self.go_on_finishing(now, out);
    }

    pub(super) fn on_checkpoint_found(
        &mut self,
        now: Now,
        position: Option<Position>,
        out: &mut Vec<Action>,
    ) {
        self.durable = position.map(|position| self.normal(position));
        if let Phase::Assembling(Assembling { checkpoint, .. }) = &mut self.phase {
            *checkpoint = Looked::Found(self.durable);
        }
        self.assemble_if_possible(now, out);
    }

    /// All of a judged epoch is none of the next.
    pub(super) fn normal(&self, position: Position) -> Position {
        let judged = (position.epoch as usize) <= self.judged.len();
        if judged && position.completed >= self.steps_of_an_epoch() {
            Position::start_of(position.epoch + 1)
        } else {
            position
        }
    }

    /// Whether a state is one of this run's past.
    pub(super) fn is_past(&self, position: Position) -> bool {
        position.epoch as usize <= self.judged.len() + 1
            && position.completed <= self.steps_of_an_epoch()
    }

    /// Moves the run to the state that the next generation begins with.
    pub(super) fn move_to(&mut self, position: Position, out: &mut Vec<Action>) {
        let known = self.ledger.last().map_or(0, |span| span.end);
        let furthest = Position {
            epoch: self.judged.len() as u32 + 1,
            completed: known,
        };
        if position < furthest {
            self.judged.truncate(position.epoch as usize - 1);
            self.replay();
            if let Some((epoch, _)) = self.awaited_best
                && epoch >= position.epoch
            {
                self.awaited_best = None;
            }
            // The file may be of an epoch that is made again; it then replaces it.
            self.best_stored = self.stopping.best().map(|best| best.epoch);
            if self.durable > Some(position) {
                self.durable = Some(position);
            }
            out.push(Action::Notify(Notice::WentBack { position }));
        }
        if position.epoch != furthest.epoch {
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
