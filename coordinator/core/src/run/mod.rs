//! The life of a run:
//!
//! ```text
//! Gathering ─all scanned─▶ Preparing ─all decoded─▶ Assembling ─▶ Forming ─all in the group─▶ Training
//!     │                        │                      ▲   ▲          │                      │   │
//!     │                        │                      │   └── lost ──┘  lost, joined, draining │   │
//!     │                        │                      └── every survivor has left the group ┘   │
//!     └─── failure, interrupt ─┴─────────────────────▶ Closed ◀───────── Finishing ◀── the rule ┘
//! ```
//!
//! A generation is one agreed membership. When one of its members is lost, the others leave it,
//! retain their state, and the next generation continues from the furthest state that any of them
//! retains: since a step changes the parameters only after its gradients are reduced over all
//! ranks, a rank that made a step made it with the samples of all.
//!
//! Each piece of the state is owned by one of `parts`. The other modules decide, one for each
//! subject, what an event means; their methods add actions to `out`.

mod decoding;
mod departure;
mod durability;
mod epoch;
mod failure;
mod finish;
mod launch;
mod membership;
mod parts;
mod phase;
mod recipe;
mod regroup;
mod rendezvous;
mod resume;
mod stall;
mod threads;
mod training;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::early_stopping::Standing;
use crate::event::{
    Action, Command, Event, Fact, LossCause, Position, RunError, ShutdownReason, StopReason,
    WorkerId,
};
pub use recipe::{Cadence, Precision, Recipe};
pub use resume::Resumed;

use parts::{
    BestWeights, Checkpoints, Dataset, Failures, History, Ledger, LocalWorkers, Members, Outage,
    Pace,
};
use phase::{Pause, Phase};

/// Time since the coordinator started.
pub type Now = Duration;

/// The state machine. The only owner of the run's truth.
#[derive(Debug)]
pub struct Run {
    recipe: Recipe,
    phase: Phase,
    members: Members,
    local_workers: LocalWorkers,
    dataset: Dataset,
    history: History,
    ledger: Ledger,
    best_weights: BestWeights,
    checkpoints: Checkpoints,
    outage: Outage,
    failures: Failures,
    pace: Pace,
    /// The live generation, or the last one.
    generation: u64,
    /// Where the generation began, or the next one begins; all epochs before are validated.
    position: Position,
    /// Why no more steps are granted.
    pause: Option<Pause>,
    /// A state exists, or has existed, so that starting afresh would lose something.
    initialized: bool,
    /// Workers have made a step, so what one cannot do, others can.
    stepped: bool,
    /// Another coordinator trained before.
    resumed: bool,
    /// When the event that is taken into account came.
    now: Now,
    /// What follows from it so far.
    out: Vec<Action>,
}

impl Run {
    /// A run that waits for its workers.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            phase: Phase::Gathering,
            members: Members::default(),
            local_workers: LocalWorkers::new(recipe.local_ranks, recipe.max_restarts, false),
            dataset: Dataset::default(),
            history: History::new(recipe.stopping, recipe.schedule.epochs, &[]),
            ledger: Ledger::default(),
            best_weights: BestWeights::new(None),
            checkpoints: Checkpoints::new(recipe.checkpoints, None),
            outage: Outage::default(),
            failures: Failures::default(),
            pace: Pace::default(),
            generation: 0,
            position: Position::start_of(1),
            pause: None,
            initialized: false,
            stepped: false,
            resumed: false,
            now: Now::ZERO,
            out: Vec::new(),
            recipe,
        }
    }

    /// Takes one event into account. After an [`Action::End`] every event is ignored.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        if !matches!(self.phase, Phase::Closed) {
            self.on_event(event);
        }
        std::mem::take(&mut self.out)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::ProcessStarted { local_rank, pid } => {
                self.local_workers.started(local_rank, pid);
            }
            Event::ProcessExited {
                local_rank,
                pid,
                status,
            } => self.on_exited(local_rank, pid, status),
            Event::LaunchFailed { local_rank, error } => {
                self.on_launch_failed(local_rank, error);
            }
            Event::BestStored { epoch } => self.on_best_stored(epoch),
            Event::CheckpointStored { position } => self.on_checkpoint_stored(position),
            Event::CheckpointFound { position } => self.on_checkpoint_found(position),
            Event::StoreFailed { error } => self.fail(RunError::RunDirectory(error)),
            Event::Interrupt => self.stop_early(StopReason::Interrupted),
            Event::Tick => self.on_tick(),
            message => self.on_message(message),
        }
    }

    /// A message of a worker, or an event of its session.
    fn on_message(&mut self, message: Event) {
        match message {
            Event::Joined {
                worker,
                host,
                pid,
                instance,
                local_rank,
            } => self.on_joined(worker, (host, pid, instance), local_rank),
            Event::Scanned { worker, scan } => self.on_scanned(worker, scan),
            Event::Preparing { worker, done } => self.on_preparing(worker, done),
            Event::Prepared { worker, bad } => self.on_prepared(worker, bad),
            Event::StoreListening {
                worker,
                generation,
                address,
            } => self.on_store_listening(worker, generation, &address),
            Event::GroupReady { worker, generation } => {
                self.on_group_ready(worker, generation);
            }
            Event::Step { worker, report } => self.on_step(worker, report),
            Event::EpochDone { worker, report } => self.on_epoch_done(worker, report),
            Event::Heartbeat { worker, heartbeat } => self.on_heartbeat(worker, heartbeat),
            Event::GenerationAborted {
                worker,
                generation,
                retained,
            } => self.on_generation_aborted(worker, generation, retained),
            Event::Draining { worker } => self.on_draining(worker),
            Event::Finished { worker, generation } => {
                self.on_finished(worker, generation);
            }
            Event::Failed {
                worker,
                kind,
                message,
            } => self.on_failed(worker, kind, message),
            Event::Lost { worker } => self.on_lost(worker, LossCause::SessionBroke),
            Event::NotReading { worker } => self.evict(worker, LossCause::NotReading),
            // All others are dealt with before.
            _ => {}
        }
    }

    /// Time has passed.
    fn on_tick(&mut self) {
        self.launch_missing();
        self.evict_unresponsive();
        self.find_stall();
        self.finish_in_time();
        self.go_on();
    }

    /// Something has changed, or time has passed: whatever waited for that may be done now.
    fn go_on(&mut self) {
        match self.phase {
            Phase::Gathering => self.gather_if_possible(),
            Phase::Preparing => self.split_if_possible(),
            Phase::Assembling(_) => self.assemble_if_possible(),
            Phase::Finishing(_) => self.go_on_finishing(),
            Phase::Forming(_) | Phase::Training(_) | Phase::Closed => {}
        }
    }

    /// Whether this worker is to upload the best weights, of this epoch.
    pub fn awaits_best(&self, worker: WorkerId, epoch: u32) -> bool {
        self.best_weights.is_upload(worker, epoch)
    }

    /// Whether this worker is to upload a checkpoint.
    pub fn awaits_checkpoint(&self, worker: WorkerId) -> bool {
        self.checkpoints.is_awaited_from(worker)
    }

    /// Whether this worker was asked for the run's predictions.
    pub fn awaits_predictions(&self, worker: WorkerId) -> bool {
        matches!(&self.phase, Phase::Finishing(finishing) if finishing.prediction_worker == Some(worker))
    }

    /// Whether this worker belongs to the run, and may read the run directory's states.
    pub fn is_member(&self, worker: WorkerId) -> bool {
        self.members.get(worker).is_some()
    }

    /// Early stopping, after the epochs so far.
    pub fn standing(&self) -> Standing {
        self.history.standing()
    }

    /// How many workers have joined, and how many of them are in the current generation.
    pub fn census(&self) -> (usize, usize) {
        (self.members.len(), self.members.world_size())
    }

    fn send(&mut self, worker: WorkerId, command: Command) {
        self.out.push(Action::Send(worker, command));
    }

    /// Ends the session of a worker.
    fn dismiss(&mut self, worker: WorkerId, reason: ShutdownReason, abort: bool) {
        self.send(worker, Command::Shutdown { reason, abort });
    }

    fn notify(&mut self, fact: Fact) {
        self.out.push(Action::Notify(fact));
    }

    fn steps_of_an_epoch(&self) -> u32 {
        self.dataset.steps_of_an_epoch(self.recipe.global_batch)
    }
}
