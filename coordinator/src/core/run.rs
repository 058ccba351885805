//! The life of a run:
//!
//! ```text
//! Gathering ──all scanned──▶ Preparing ──all prepared──▶ Forming ──all in the group──▶ Training
//!     │                          │                          │        (epoch after epoch)  │
//!     └──────────── failure, interrupt: shut everyone down ─┴──────────────▶ Closed ◀── Finishing
//! ```

mod end;
mod form;
mod gather;
mod judge;
mod train;

use std::collections::BTreeMap;
use std::time::Duration;

use super::early_stopping::{EarlyStopping, Rule};
use super::event::{Action, EpochReport, Event, RunError, Scan, StopReason, WorkerId};
use super::schedule::Schedule;
use super::split::Split;

/// Time since the coordinator started.
pub type Now = Duration;

/// Whether to compute in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Precision {
    /// bf16 where every worker has it in silicon.
    Auto,
    Fp32,
    Bf16,
}

/// Everything that decides what a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Workers to wait for.
    pub workers: usize,
    /// Samples of a step, over all ranks.
    pub global_batch: usize,
    /// Part of the samples kept for validation, in (0, 1).
    pub validation_fraction: f64,
    /// Samples evaluated at once.
    pub validation_chunk: usize,
    /// Of split, order and fresh weights.
    pub seed: u64,
    /// Rates, and the limit of epochs.
    pub schedule: Schedule,
    /// When to give up.
    pub stopping: Rule,
    /// A file that does not decode ends the run.
    pub strict_data: bool,
    /// What to compute in.
    pub precision: Precision,
}

#[derive(Debug)]
struct Member {
    host: String,
    slot: Option<u32>,
    scan: Option<Scan>,
    preparing: u32,
    prepared: bool,
    rank: u32,
    in_group: bool,
    completed: u32,
    /// Training samples and first and last-plus-one validation chunk of its plan.
    share: (u32, std::ops::Range<u32>),
    report: Option<EpochReport>,
    finished: bool,
}

#[derive(Debug)]
struct Training {
    epoch: u32,
    steps: u32,
    granted: u32,
    started: Now,
    trained: Option<Now>,
    step_seconds: f64,
}

#[derive(Debug)]
enum Phase {
    Gathering,
    Preparing,
    Forming,
    Training(Training),
    Finishing { reason: StopReason, until: Now },
    Closed,
}

/// The state machine. The only owner of the run's truth.
#[derive(Debug)]
pub struct Run {
    recipe: Recipe,
    phase: Phase,
    members: BTreeMap<WorkerId, Member>,
    generation: u64,
    classes: Vec<String>,
    files: Vec<(String, u64)>,
    bad: BTreeMap<u32, String>,
    split: Split,
    stopping: EarlyStopping,
    interrupted: Option<StopReason>,
    blame: Option<(Now, WorkerId, String)>,
    awaited_state: Option<u32>,
}

impl Run {
    /// A run that waits for its workers.
    pub fn new(recipe: Recipe) -> Self {
        let stopping = EarlyStopping::new(recipe.stopping);
        Self {
            recipe,
            phase: Phase::Gathering,
            members: BTreeMap::new(),
            generation: 0,
            classes: Vec::new(),
            files: Vec::new(),
            bad: BTreeMap::new(),
            split: Split {
                train: Vec::new(),
                validation: Vec::new(),
            },
            stopping,
            interrupted: None,
            blame: None,
            awaited_state: None,
        }
    }

    /// Takes one event into account. After an [`Action::End`] every event is ignored.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::Closed) {
            return out;
        }
        match event {
            Event::Joined { worker, host, slot } => self.on_joined(worker, host, slot, &mut out),
            Event::Scanned { worker, scan } => self.on_scanned(worker, scan, &mut out),
            Event::Preparing { worker, done } => self.on_preparing(worker, done, &mut out),
            Event::Prepared { worker, bad } => self.on_prepared(worker, bad, &mut out),
            Event::StoreListening {
                worker,
                generation,
                address,
            } => {
                self.on_store(worker, generation, &address, &mut out);
            }
            Event::GroupReady { worker, generation } => {
                self.on_group_ready(now, worker, generation, &mut out);
            }
            Event::Step { worker, report } => self.on_step(now, worker, report, &mut out),
            Event::EpochDone { worker, report } => self.on_epoch(now, worker, report, &mut out),
            Event::StateStored { epoch } => {
                if self.awaited_state == Some(epoch) {
                    self.awaited_state = None;
                }
                self.close_if_finished(&mut out);
            }
            Event::Finished { worker, generation } => {
                if generation == self.generation
                    && matches!(self.phase, Phase::Finishing { .. })
                    && let Some(member) = self.members.get_mut(&worker)
                {
                    member.finished = true;
                }
                self.close_if_finished(&mut out);
            }
            Event::Failed {
                worker,
                kind,
                message,
            } => {
                self.on_failed(now, worker, kind, message, &mut out);
            }
            Event::Lost { worker } => self.on_lost(worker, &mut out),
            Event::ProcessExited { slot, status } => {
                if !self
                    .members
                    .values()
                    .any(|member| member.slot == Some(slot))
                {
                    self.fail(RunError::ExitedEarly { slot, status }, &mut out);
                }
            }
            Event::StoreFailed { reason } => self.fail(RunError::RunDirectory(reason), &mut out),
            Event::Interrupt => self.stop_early(now, StopReason::Interrupted, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
        }
        out
    }

    /// Whether these are the best weights so far, from the rank that is to hand them over.
    pub fn awaits_state(&self, worker: WorkerId, generation: u64, epoch: u32) -> bool {
        self.awaited_state == Some(epoch)
            && generation == self.generation
            && self
                .members
                .get(&worker)
                .is_some_and(|member| member.rank == 0)
    }

    /// Whether this worker is rank 0 of this generation, and the run is about to end.
    pub fn awaits_predictions(&self, worker: WorkerId, generation: u64) -> bool {
        matches!(self.phase, Phase::Finishing { .. })
            && generation == self.generation
            && self
                .members
                .get(&worker)
                .is_some_and(|member| member.rank == 0)
    }

    fn all(&self, holds: impl Fn(&Member) -> bool) -> bool {
        !self.members.is_empty() && self.members.values().all(holds)
    }
}
