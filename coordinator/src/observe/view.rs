//! What follows from the facts so far and more than one observer shows: the epoch under way, the
//! finished ones, early stopping, the ranks, the newest checkpoint. It shows nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::metrics::RunState;
use super::stragglers::Stragglers;
use crate::store::RunHistory;
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{FinishedEpoch, Position, StepReport};
use coordinator_core::{Fact, WorkerId};

/// The run as its facts tell it.
#[derive(Debug)]
pub(super) struct RunView {
    /// The most epochs.
    pub(super) epochs: u32,
    /// Early stopping, after the epochs so far.
    pub(super) stopping: Standing,
    /// The finished epochs, of former coordinators too.
    pub(super) finished: Vec<FinishedEpoch>,
    epoch: EpochSoFar,
    stragglers: Stragglers,
    /// The rank of each member of the current generation.
    ranks: HashMap<WorkerId, usize>,
    /// The newest durable checkpoint; at first what a run begins with.
    pub(super) durable: Position,
    /// Workers that the run is meant to have.
    expected: usize,
    /// Workers that were lost, and neither replaced nor come back.
    missing: usize,
    /// The state that the last fact put the run into.
    pub(super) entered: Option<RunState>,
    /// The step that the last fact completed.
    pub(super) completed: Option<CompletedStep>,
}

/// A step that all ranks have completed.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletedStep {
    /// Counted from 1.
    pub epoch: u32,
    /// The most epochs.
    pub epochs: u32,
    /// Steps completed in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Mean training loss of this epoch so far.
    pub loss: f64,
    /// Training images per second over all ranks.
    pub images_per_second: f64,
    /// Steps of these that the current generation has made.
    pub made: u64,
    /// Wall seconds that it took for them.
    pub elapsed: f64,
    /// Training samples since the last such step.
    pub samples: u64,
}

/// Sums over the steps of the epoch under way, in the current generation.
#[derive(Debug)]
struct EpochSoFar {
    epoch: u32,
    steps: u32,
    /// Steps that former generations have made.
    before: u32,
    started: Instant,
    /// The steps of rank 0: more than the time since the start where its reports came late.
    seconds: f64,
    loss_sum: f64,
    samples: u64,
    /// Of a step that not all ranks have completed.
    uncounted: u64,
    completed: BTreeMap<u32, u32>,
}

impl EpochSoFar {
    fn new(epoch: u32, completed: u32, steps: u32, world_size: u32) -> Self {
        Self {
            epoch,
            steps,
            before: completed,
            started: Instant::now(),
            seconds: 0.0,
            loss_sum: 0.0,
            samples: 0,
            uncounted: 0,
            completed: (0..world_size).map(|rank| (rank, completed)).collect(),
        }
    }

    /// Steps that every rank has completed.
    fn slowest(&self) -> u32 {
        self.completed.values().copied().min().unwrap_or(0)
    }

    /// Adds a report; the step that it completes for all ranks.
    fn add(&mut self, rank: u32, report: &StepReport, epochs: u32) -> Option<CompletedStep> {
        let before = self.slowest();
        self.completed.insert(rank, report.completed);
        self.loss_sum += report.loss_sum;
        self.samples += u64::from(report.samples);
        self.uncounted += u64::from(report.samples);
        if rank == 0 {
            self.seconds += report.seconds;
        }
        let step = self.slowest();
        if step == before {
            return None;
        }
        let elapsed = self.started.elapsed().as_secs_f64().max(self.seconds);
        Some(CompletedStep {
            epoch: self.epoch,
            epochs,
            step: step.into(),
            steps: self.steps.into(),
            loss: self.loss_sum / self.samples.max(1) as f64,
            images_per_second: self.samples as f64 / elapsed.max(1e-9),
            made: step.saturating_sub(self.before).into(),
            elapsed,
            samples: std::mem::take(&mut self.uncounted),
        })
    }
}

impl RunView {
    /// A run of at most `epochs` epochs, of which nothing is known.
    pub(super) fn new(epochs: u32) -> Self {
        Self {
            epochs,
            stopping: Standing::default(),
            finished: Vec::new(),
            epoch: EpochSoFar::new(0, 0, 0, 0),
            stragglers: Stragglers::default(),
            ranks: HashMap::new(),
            durable: Position::start_of(1),
            expected: 0,
            missing: 0,
            entered: None,
            completed: None,
        }
    }

    /// Loads what a former coordinator left.
    pub(super) fn remember(&mut self, history: &RunHistory, stopping: Standing) {
        self.durable = history.position();
        self.stopping = stopping;
        self.finished.clone_from(&history.epochs);
    }

    /// Takes a fact into account; before the observers show it.
    pub(super) fn apply(&mut self, fact: &Fact) {
        self.completed = None;
        self.entered = match fact {
            Fact::Waiting(_) => Some(RunState::Waiting),
            Fact::Preparing { .. } => Some(RunState::Preparing),
            Fact::EpochStarted { .. } => Some(RunState::Training),
            Fact::Stopping(_) => Some(RunState::Finishing),
            _ => None,
        };
        match fact {
            Fact::Joined { expected, .. } => self.expected = *expected,
            Fact::Lost { .. } => self.missing += 1,
            Fact::GroupFormed { ranks, .. } => {
                self.stragglers = Stragglers::of(ranks.len());
                let holders = ranks.iter().enumerate();
                self.ranks = holders.map(|(rank, of)| (of.worker, rank)).collect();
            }
            Fact::EpochStarted {
                epoch,
                completed,
                steps,
                world_size,
                ..
            } => self.epoch = EpochSoFar::new(*epoch, *completed, *steps, *world_size),
            Fact::Step { rank, report } => {
                let busy = report.seconds - report.phases.allreduce_wait;
                self.stragglers.add(*rank as usize, busy);
                self.completed = self.epoch.add(*rank, report, self.epochs);
                let last = |step: &CompletedStep| step.step == step.steps;
                if self.completed.as_ref().is_some_and(last) {
                    self.entered = Some(RunState::Validating);
                }
            }
            Fact::EpochEnded {
                epoch, stopping, ..
            } => {
                self.finished.push(epoch.clone());
                self.stopping = *stopping;
            }
            Fact::RolledBack { position, stopping } => {
                self.finished.retain(|epoch| epoch.epoch < position.epoch);
                self.stopping = *stopping;
                self.durable = self.durable.min(*position);
            }
            _ => {}
        }
    }

    /// A checkpoint is durable.
    pub(super) fn checkpoint(&mut self, position: Position) {
        self.durable = self.durable.max(position);
    }

    /// So many workers have joined; how many are missing: a worker that joins takes the place of
    /// one that was lost.
    pub(super) fn census(&mut self, joined: usize) -> usize {
        self.missing = self.missing.min(self.expected.saturating_sub(joined));
        self.missing
    }

    /// A worker that is missing now ended with the run.
    pub(super) fn forget_missing(&mut self) {
        self.missing = 0;
    }

    /// The best epoch, by the rule that the run stops by.
    pub(super) fn best(&self) -> Option<&FinishedEpoch> {
        let best = self.stopping.best?.epoch;
        self.finished.iter().find(|epoch| epoch.epoch == best)
    }

    /// Each rank's ratio; empty until all ranks have made a step.
    pub(super) fn straggler_ratios(&self) -> Vec<f64> {
        self.stragglers.ratios()
    }

    /// The rank of a member of the current generation.
    pub(super) fn rank(&self, worker: WorkerId) -> Option<usize> {
        self.ranks.get(&worker).copied()
    }

    /// Steps between the newest checkpoint and where the run is.
    pub(super) fn checkpoint_lag(&self) -> u64 {
        let steps = u64::from(self.epoch.steps);
        let index = |epoch: u32, completed: u32| u64::from(epoch) * steps + u64::from(completed);
        let durable = index(self.durable.epoch, self.durable.completed);
        let now = index(self.epoch.epoch, self.epoch.slowest());
        now.saturating_sub(durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_at_the_start_of_an_epoch_is_that_of_its_steps() {
        let mut epoch = EpochSoFar::new(1, 0, 10, 1);
        let report = StepReport {
            generation: 1,
            epoch: 1,
            completed: 1,
            loss_sum: 1.0,
            samples: 16,
            seconds: 2.0,
            phases: coordinator_core::event::Phases::default(),
        };
        // It arrives at once with the start.
        let step = epoch.add(0, &report, 1).unwrap();
        assert_eq!(step.images_per_second, 8.0);
    }
}
