//! Shows a run: metrics, status page, terminal, traces. It takes no decision, writes no file, and
//! nothing flows back.

pub mod console;
pub mod metrics;
pub mod report;
pub mod status;

mod epoch;
mod members;
mod page;
mod results;
mod stragglers;
mod traces;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use self::traces::Traces;
use crate::launcher::WorkerExit;
use crate::observe::console::Progress;
use crate::observe::metrics::{Metrics, RunState};
use crate::observe::status::{Board, Status};
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{FinishedEpoch, Position, StopReason};
use coordinator_core::{Fact, WorkerId};
use epoch::EpochSoFar;
pub use results::{Prediction, Predictions};
use stragglers::Stragglers;

/// All observers of a run, and what they need to remember.
pub struct Observers {
    run_dir: PathBuf,
    metrics: Metrics,
    status: Board,
    progress: Progress,
    started: Instant,
    epochs: u32,
    patience: u32,
    /// Early stopping, after the epochs so far.
    stopping: Standing,
    expected: usize,
    /// Lost, and neither replaced nor come back.
    missing: usize,
    /// The rank of each member of the current generation.
    ranks: HashMap<WorkerId, usize>,
    /// The newest durable checkpoint; at first what a run begins with.
    durable: Position,
    split: Option<(Vec<String>, Vec<String>)>,
    finished: Vec<FinishedEpoch>,
    epoch: EpochSoFar,
    stragglers: Stragglers,
    exits: Vec<WorkerExit>,
    traces: Option<Traces>,
    /// Warnings about workers' machines that were said.
    warnings: BTreeSet<String>,
}

impl Observers {
    /// Observers of a run of at most `epochs` epochs.
    pub fn new(
        run_dir: PathBuf,
        metrics: Metrics,
        status: (Status, watch::Sender<Arc<Status>>),
        progress: Progress,
        epochs: u32,
        patience: u32,
    ) -> Self {
        let mut status = Board::new(status.0, status.1);
        status.change(|status| status.patience = patience);
        Self {
            run_dir,
            metrics,
            status,
            progress,
            started: Instant::now(),
            epochs,
            patience,
            stopping: Standing::default(),
            expected: 0,
            missing: 0,
            ranks: HashMap::new(),
            durable: Position::start_of(1),
            split: None,
            finished: Vec::new(),
            epoch: EpochSoFar::new(0, 0, 0, 0),
            stragglers: Stragglers::default(),
            exits: Vec::new(),
            traces: None,
            warnings: BTreeSet::new(),
        }
    }

    /// The run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Processes that have ended so far.
    pub fn exits(&self) -> &[WorkerExit] {
        &self.exits
    }

    /// Remembers a process that ended.
    pub fn exited(&mut self, exit: WorkerExit) {
        self.exits.push(exit);
    }

    /// Prints a line.
    pub fn say(&mut self, line: &str) {
        self.progress.say(line);
    }

    /// Shows what happened.
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Joined {
                member,
                members,
                expected,
            } => {
                self.joined(members, expected);
                self.show_newcomer(&member);
            }
            Fact::Lost {
                member,
                location,
                cause,
            } => self.lost(&member, location, &cause),
            Fact::Left { member } => self.left(&member),
            Fact::Warned { host, warning } => self.warned(format!("on {host}: {warning}")),
            Fact::Refused { member, reason } => {
                self.progress.say(&format!("refused {member}: {reason}"));
            }
            Fact::LaunchFailed { local_rank, error } => self.progress.say(&format!(
                "local worker {local_rank} cannot be started: {error}"
            )),
            Fact::Stalled(report) => self.progress.say(&report.to_string()),
            Fact::Waiting(reason) => self.waiting(&reason),
            Fact::CheckpointMissed => self.progress.say(&format!(
                "the last checkpoint did not arrive within --grace; --resume goes on from {}",
                self.durable
            )),
            Fact::RolledBack { position, stopping } => self.rolled_back(position, stopping),
            Fact::Recovered {
                cause,
                position,
                world_size,
                seconds,
                steps_lost,
                ..
            } => self.recovered(cause, position, world_size, seconds, steps_lost),
            Fact::Preparing { done, total } => self.preparing(done, total),
            Fact::BadFile { path, error } => self.bad_file(&path, &error),
            Fact::SplitReady {
                classes,
                files,
                split,
                ..
            } => {
                let (train, validation) = (split.train.len(), split.validation.len());
                self.progress.say(&format!(
                    "data: {} classes, {train} images to train on, {validation} to validate",
                    classes.len()
                ));
                self.split = Some((classes, files));
            }
            Fact::GroupFormed {
                generation,
                ranks,
                backend,
                precision,
            } => self.group_formed(generation, ranks, backend, precision),
            Fact::EpochStarted {
                epoch,
                completed,
                steps,
                world_size,
                lrs,
            } => self.epoch_started(epoch, completed, steps, world_size, lrs),
            Fact::Step { rank, report } => self.step(rank, &report),
            Fact::EpochEnded {
                epoch,
                validated,
                ranks,
                stopping,
            } => self.epoch_ended(epoch, validated, &ranks, stopping),
            Fact::Stopping(reason) => self.ending(reason),
        }
    }

    /// The run is in another state.
    fn enter(&mut self, state: RunState) {
        self.metrics.set_run_state(state);
        self.status
            .change(|status| state.label().clone_into(&mut status.state));
    }

    fn preparing(&mut self, done: usize, total: usize) {
        self.enter(RunState::Preparing);
        self.progress.preparing(done as u64, total as u64);
    }

    fn bad_file(&mut self, path: &str, error: &str) {
        self.metrics.add_decode_errors(1);
        self.progress.say(&format!("skipped {path}: {error}"));
    }

    fn ending(&mut self, reason: StopReason) {
        if reason == StopReason::Interrupted {
            self.progress
                .say("stopping after the current steps; again to stop at once");
        }
        self.enter(RunState::Finishing);
    }
}
