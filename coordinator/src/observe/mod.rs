//! Carries what the core wants known to those who watch: run directory, metrics, status page,
//! terminal, traces. It takes no decision, and nothing flows back but the failure to write.

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
use std::path::Path;
use std::time::Instant;

use tokio::sync::watch;

use self::traces::Traces;
use crate::launcher::WorkerExit;
use crate::net::clock::unix_seconds;
use crate::observe::console::Progress;
use crate::observe::metrics::{Metrics, RankFacts, RunState};
use crate::observe::report::ReportError;
use crate::observe::status::Status;
use crate::store::{Journal, JournalEntry, RunStore, Split, StoreError};
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{Position, StopReason};
use coordinator_core::{Fact, WorkerId};
use epoch::EpochSoFar;
use stragglers::Stragglers;

/// Why something that a run must keep could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The run directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The cache that local workers share.
    #[error("cannot make the shared image cache: {0}")]
    Cache(#[from] std::io::Error),
    /// A blob that its sender encoded wrongly.
    #[error("a worker's predictions cannot be read: {0}")]
    Predictions(String),
}

/// All observers of a run, and what they need to remember.
pub struct Observers {
    store: RunStore,
    journal: Journal,
    metrics: Metrics,
    status: watch::Sender<Status>,
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
    epoch: EpochSoFar,
    stragglers: Stragglers,
    exits: Vec<WorkerExit>,
    traces: Option<Traces>,
    broken: Option<KeepError>,
    /// Warnings about workers' machines that were said.
    warned: BTreeSet<String>,
    /// What was said of torn checkpoints.
    corrupt: BTreeSet<String>,
}

impl Observers {
    /// Observers of a run of at most `epochs` epochs.
    pub fn new(
        store: RunStore,
        journal: Journal,
        metrics: Metrics,
        status: watch::Sender<Status>,
        progress: Progress,
        epochs: u32,
        patience: u32,
    ) -> Self {
        let mut observers = Self {
            store,
            journal,
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
            epoch: EpochSoFar::new(0, 0, 0, 0),
            stragglers: Stragglers::default(),
            exits: Vec::new(),
            traces: None,
            broken: None,
            warned: BTreeSet::new(),
            corrupt: BTreeSet::new(),
        };
        observers.show_past();
        observers
    }

    /// Where the run's files lie.
    pub fn run_dir(&self) -> &Path {
        self.store.root()
    }

    /// Processes that have ended so far.
    pub fn exits(&self) -> &[WorkerExit] {
        &self.exits
    }

    /// Remembers a process that ended.
    pub fn exited(&mut self, exit: WorkerExit) {
        self.exits.push(exit);
    }

    /// Remembers the first thing that could not be kept.
    pub fn broken(&mut self, error: KeepError) {
        self.broken.get_or_insert(error);
    }

    /// Hands out what could not be kept, once.
    pub fn take_broken(&mut self) -> Option<KeepError> {
        self.broken.take()
    }

    /// A line for whoever started the run.
    pub fn say(&mut self, line: &str) {
        self.progress.say(line);
    }

    /// Takes a notice of the core into account.
    pub fn notice(&mut self, notice: Fact) {
        match notice {
            Fact::Joined {
                member,
                members,
                expected,
            } => {
                self.joined(members, expected);
                self.show_newcomer(&member);
                self.journal(JournalEntry::Joined {
                    worker: member.worker.0,
                    host: member.host,
                    local_rank: member.local_rank,
                });
            }
            Fact::Lost {
                member,
                location,
                cause,
            } => self.lost(&member, location, &cause),
            Fact::Left { member } => self.left(&member),
            Fact::Warned { host, warning } => {
                let line = format!("on {host}: {warning}");
                // Workers of one machine, and those that come back, say the same.
                if self.warned.insert(line.clone()) {
                    self.progress.say(&line);
                }
            }
            Fact::Refused { member, reason } => {
                self.progress.say(&format!("refused {member}: {reason}"));
            }
            Fact::LaunchFailed { local_rank, error } => self.progress.say(&format!(
                "local worker {local_rank} cannot be started: {error}"
            )),
            Fact::Stalled(report) => {
                let line = report.to_string();
                self.progress.say(&line);
                self.journal(JournalEntry::Stalled { line });
            }
            Fact::Waiting(reason) => self.waiting(&reason),
            Fact::CheckpointMissed => self.progress.say(&format!(
                "the last checkpoint did not arrive within --grace; --resume goes on from {}",
                self.durable
            )),
            Fact::RolledBack { position, stopping } => self.rolled_back(position, stopping),
            Fact::Recovered {
                cause,
                generation,
                position,
                world_size,
                seconds,
                steps_lost,
            } => self.recovered(cause, generation, position, world_size, seconds, steps_lost),
            Fact::Preparing { done, total } => {
                self.enter(RunState::Preparing);
                self.progress.preparing(done as u64, total as u64);
            }
            Fact::BadFile { path, error } => {
                self.metrics.add_decode_errors(1);
                self.progress.say(&format!("skipped {path}: {error}"));
            }
            Fact::SplitReady {
                fingerprint,
                classes,
                files,
                split,
            } => {
                let paths = |indices: &[u32]| {
                    indices
                        .iter()
                        .filter_map(|at| files.get(*at as usize).cloned())
                        .collect()
                };
                let record = Split {
                    fingerprint,
                    classes: classes.clone(),
                    train: paths(&split.train),
                    validation: paths(&split.validation),
                };
                self.progress.say(&format!(
                    "data: {} classes, {} images to train on, {} to validate",
                    classes.len(),
                    record.train.len(),
                    record.validation.len()
                ));
                self.keep(|store| store.write_split(&record));
                self.split = Some((classes, files));
            }
            Fact::GroupFormed {
                generation,
                ranks,
                backend,
                precision,
            } => {
                let world_size = ranks.len();
                self.trace(|traces| traces.formed(generation));
                self.stragglers = Stragglers::of(world_size);
                let holders = ranks.iter().enumerate();
                self.ranks = holders.map(|(rank, of)| (of.worker, rank)).collect();
                let facts: Vec<RankFacts> = ranks
                    .iter()
                    .map(|of| RankFacts {
                        host: of.host.clone(),
                        device: of.device.clone(),
                        gpu_uuid: of.gpu_uuid.clone(),
                    })
                    .collect();
                self.metrics
                    .begin_generation(generation, &facts, unix_seconds());
                self.show_group(ranks);
                self.journal(JournalEntry::Formed {
                    generation,
                    world_size,
                });
                self.status.send_modify(|status| {
                    status.generation = generation;
                    status.world_size = world_size;
                });
                self.progress.say(&format!(
                    "group: {world_size} ranks over {backend}, computing in {precision}"
                ));
            }
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
            Fact::Stopping(reason) => {
                if reason == StopReason::Interrupted {
                    self.progress
                        .say("stopping after the current steps; again to stop at once");
                }
                self.enter(RunState::Finishing);
            }
        }
    }

    /// The run is in another state.
    fn enter(&self, state: RunState) {
        self.metrics.set_run_state(state);
        self.status
            .send_modify(|status| state.label().clone_into(&mut status.state));
    }

    fn keep(&mut self, write: impl FnOnce(&mut RunStore) -> Result<(), StoreError>) {
        if let Err(error) = write(&mut self.store) {
            self.broken(error.into());
        }
    }
}
