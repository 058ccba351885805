//! The life of a run:
//!
//! ```text
//! Gathering ─all scanned─▶ Preparing ─all decoded─▶ Assembling ─▶ Forming ─all in the group─▶ Training
//!     │                        │                      ▲   ▲          │                      │   │
//!     │                        │                      │   └── lost ──┘    lost, joined, left │   │
//!     │                        │                      └──── every survivor has halted ──────┘   │
//!     └─── failure, interrupt ─┴─────────────────────▶ Closed ◀───────── Finishing ◀── the rule ┘
//! ```
//!
//! A generation is one agreed membership. When one of its members is lost, the others leave it,
//! keep their state, and the next generation goes on from the furthest state that any of them
//! holds: since a step changes the parameters only after its gradients are reduced over all
//! ranks, whoever made a step made it with everybody's samples.

mod assemble;
mod end;
mod finish;
mod form;
mod gather;
mod judge;
mod launch;
mod loss;
mod prepare;
mod recipe;
mod restore;
mod stall;
mod train;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::early_stopping::{EarlyStopping, Standing};
use super::event::{
    Action, EpochReport, Event, Heartbeat, Loss, LossCause, MemberInfo, Origin, OutageCause,
    Position, RunError, Scan, Span, StopReason, WaitReason, WorkerId,
};
use super::split::Split;
pub use recipe::{Cadence, Precision, Recipe};
pub use restore::Resumed;

/// Time since the coordinator started.
pub type Now = Duration;

/// How far a member is from being able to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Joined,
    Scanned,
    Preparing,
    Ready,
}

#[derive(Debug)]
struct Member {
    host: String,
    pid: u32,
    instance: u64,
    local_rank: Option<u32>,
    /// The launcher of a former coordinator started it.
    from_before: bool,
    joined: Now,
    scan: Option<Scan>,
    stage: Stage,
    /// What it was told to decode, and how much of it is done.
    decoding: Option<(Vec<u32>, u32)>,
    /// The state that it holds outside a generation.
    retained: Option<Position>,
    /// The best epoch of whose weights it has a copy.
    best: Option<u32>,
    draining: bool,
    heartbeat: Option<(Now, Heartbeat)>,
    /// Its place in the generation, until it has halted.
    assignment: Option<Assignment>,
}

impl Member {
    /// How others name it.
    fn info(&self, worker: WorkerId) -> MemberInfo {
        MemberInfo {
            worker,
            host: self.host.clone(),
            rank: self.assignment.as_ref().map(|assignment| assignment.rank),
            local_rank: self.local_rank,
        }
    }
}

#[derive(Debug)]
struct Assignment {
    rank: u32,
    /// When it was given.
    since: Now,
    in_group: bool,
    completed: u32,
    /// Training samples, and first and last-plus-one validation chunk, of its plan.
    share: (u32, Range<u32>),
    report: Option<EpochReport>,
}

#[derive(Debug)]
struct Training {
    steps: u32,
    granted: u32,
    started: Now,
    trained: Option<Now>,
}

#[derive(Debug)]
struct Forming {
    origin: Origin,
    /// The rank that gives its state to all.
    source: u32,
    /// The others know where to meet.
    announced: bool,
}

/// No generation is live. It waits for the last one's members to halt, and for others to come.
#[derive(Debug)]
struct Assembling {
    since: Now,
    /// Workers started by hand that were lost, and may be started again.
    absent: usize,
    checkpoint: CheckpointLookup,
    /// What was last reported as missing.
    waiting: Option<WaitReason>,
}

/// Whether the run directory was searched for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum CheckpointLookup {
    NotYet,
    Asked,
    Found(Option<Position>),
}

#[derive(Debug)]
struct Finishing {
    reason: StopReason,
    until: Now,
    /// Whether what was being written when the best weights were missed is written by now.
    settled: CheckpointLookup,
    /// Who was told to finish, once somebody was, and has not done so.
    waits: Option<BTreeSet<WorkerId>>,
    /// Who of them was asked for the last picture.
    shows: Option<WorkerId>,
}

#[derive(Debug)]
enum Phase {
    Gathering,
    Preparing,
    Assembling(Assembling),
    Forming(Forming),
    Training(Training),
    Finishing(Finishing),
    Closed,
}

/// Why no more steps are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// The world changes at the next step boundary.
    Regroup,
    Stop(StopReason),
}

/// A loss that the run has not yet recovered from.
#[derive(Debug)]
struct Outage {
    since: Now,
    cause: OutageCause,
    /// The furthest step that any rank had reported.
    reported: Position,
}

/// The state machine. The only owner of the run's truth.
#[derive(Debug)]
pub struct Run {
    recipe: Recipe,
    phase: Phase,
    members: BTreeMap<WorkerId, Member>,
    local_ranks: BTreeMap<u32, launch::LocalWorker>,
    generation: u64,
    fingerprint: Option<String>,
    classes: Vec<String>,
    files: Vec<(String, u64)>,
    bad: BTreeMap<u32, String>,
    /// Files that are decoded in the cache which the launcher's workers share.
    cached: BTreeSet<u32>,
    split: Option<Split>,
    resumed: Option<Resumed>,
    /// Another coordinator had this run before, whose workers may come to this one.
    inherited: bool,
    /// Where the run stands; all epochs before are judged.
    position: Position,
    /// A state exists, or has existed, so that starting afresh would lose something.
    initialized: bool,
    /// Validation losses of the judged epochs.
    validation_losses: Vec<f64>,
    stopping: EarlyStopping,
    ledger: Vec<Span>,
    step_seconds: f64,
    pause: Option<Pause>,
    outage: Option<Outage>,
    /// Group failures in a row in which nobody died and no step was made.
    consecutive_group_failures: u32,
    last_loss: Option<Loss>,
    /// The epoch of the best weights in the run directory.
    best_stored: Option<u32>,
    awaited_best: Option<(u32, WorkerId)>,
    /// A checkpoint is due, and is not stored yet.
    checkpoint_due: bool,
    /// Who is to hand over a checkpoint, and from where on it is one that is wanted.
    awaited_checkpoint: Option<(WorkerId, Position)>,
    /// The newest checkpoint, as far as is known.
    durable: Option<Position>,
    /// When, and at which step of the epoch, a checkpoint was last due.
    last_checkpoint: (Now, u32),
}

impl Run {
    /// A run that waits for its workers.
    pub fn new(recipe: Recipe) -> Self {
        let stopping = EarlyStopping::new(recipe.stopping);
        Self {
            recipe,
            phase: Phase::Gathering,
            members: BTreeMap::new(),
            local_ranks: BTreeMap::new(),
            generation: 0,
            fingerprint: None,
            classes: Vec::new(),
            files: Vec::new(),
            bad: BTreeMap::new(),
            cached: BTreeSet::new(),
            split: None,
            resumed: None,
            inherited: false,
            position: Position::start_of(1),
            initialized: false,
            validation_losses: Vec::new(),
            stopping,
            ledger: Vec::new(),
            step_seconds: 0.0,
            pause: None,
            outage: None,
            consecutive_group_failures: 0,
            last_loss: None,
            best_stored: None,
            awaited_best: None,
            checkpoint_due: false,
            awaited_checkpoint: None,
            durable: None,
            last_checkpoint: (Now::ZERO, 0),
        }
    }

    /// Takes one event into account. After an [`Action::End`] every event is ignored.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::Closed) {
            return out;
        }
        match event {
            Event::Joined {
                worker,
                host,
                pid,
                instance,
                local_rank,
            } => self.on_joined(now, worker, (host, pid, instance), local_rank, &mut out),
            Event::Scanned { worker, scan } => self.on_scanned(now, worker, scan, &mut out),
            Event::Preparing { worker, done } => self.on_preparing(worker, done, &mut out),
            Event::Prepared { worker, bad } => self.on_prepared(now, worker, bad, &mut out),
            Event::StoreListening {
                worker,
                generation,
                address,
            } => self.on_store(worker, generation, &address, &mut out),
            Event::GroupReady { worker, generation } => {
                self.on_group_ready(now, worker, generation, &mut out);
            }
            Event::Step { worker, report } => self.on_step(now, worker, report, &mut out),
            Event::EpochDone { worker, report } => self.on_epoch(now, worker, report, &mut out),
            Event::BestStored { epoch } => self.on_best_stored(now, epoch, &mut out),
            Event::CheckpointStored { position } => {
                self.on_checkpoint_stored(now, position, &mut out);
            }
            Event::CheckpointFound { position } => {
                self.on_checkpoint_found(now, position, &mut out);
            }
            Event::Heartbeat { worker, heartbeat } => {
                let place = |heartbeat: &Heartbeat| (heartbeat.generation, heartbeat.position);
                if let Some(member) = self.members.get_mut(&worker)
                    // One that comes late says nothing of where the worker is now.
                    && member.heartbeat.is_none_or(|(_, last)| place(&last) <= place(&heartbeat))
                {
                    member.heartbeat = Some((now, heartbeat));
                }
            }
            Event::GenerationAborted {
                worker,
                generation,
                retained,
            } => self.on_halted(now, worker, generation, retained, &mut out),
            Event::Draining { worker } => self.on_draining(now, worker, &mut out),
            Event::Finished { worker, generation } => {
                self.on_finished(now, worker, generation, &mut out);
            }
            Event::Failed {
                worker,
                kind,
                message,
            } => self.on_failed(now, worker, kind, message, &mut out),
            Event::Lost { worker } => {
                self.on_lost(now, worker, LossCause::SessionBroke, &mut out);
            }
            Event::ProcessStarted { local_rank, pid } => self.on_started(local_rank, pid),
            Event::ProcessExited {
                local_rank,
                pid,
                status,
            } => self.on_exited(now, local_rank, pid, status, &mut out),
            Event::LaunchFailed { local_rank, error } => {
                self.on_launch_failed(now, local_rank, error, &mut out);
            }
            Event::StoreFailed { error } => self.fail(RunError::RunDirectory(error), &mut out),
            Event::Interrupt => self.stop_early(now, StopReason::Interrupted, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
        }
        out
    }

    /// Whether this worker is to hand over the best weights, of this epoch.
    pub fn awaits_best(&self, worker: WorkerId, epoch: u32) -> bool {
        self.awaited_best == Some((epoch, worker))
    }

    /// Whether this worker is to hand over a checkpoint.
    pub fn awaits_checkpoint(&self, worker: WorkerId) -> bool {
        self.awaited_checkpoint
            .is_some_and(|(from, _)| from == worker)
    }

    /// Whether this worker was asked for the run's last picture.
    pub fn awaits_predictions(&self, worker: WorkerId) -> bool {
        matches!(&self.phase, Phase::Finishing(finishing) if finishing.shows == Some(worker))
    }

    /// Whether this worker belongs to the run, and may read the run directory's states.
    pub fn is_member(&self, worker: WorkerId) -> bool {
        self.members.contains_key(&worker)
    }

    /// Early stopping, after the epochs so far.
    pub fn standing(&self) -> Standing {
        self.stopping.standing()
    }

    /// How many workers have joined, and how many of them are in the current generation.
    pub fn census(&self) -> (usize, usize) {
        (self.members.len(), self.world_size())
    }

    fn assigned(&self) -> impl Iterator<Item = (WorkerId, &Member, &Assignment)> {
        self.members
            .iter()
            .filter_map(|(id, member)| Some((*id, member, member.assignment.as_ref()?)))
    }

    fn assignments(&mut self) -> impl Iterator<Item = (WorkerId, &mut Assignment)> {
        self.members
            .iter_mut()
            .filter_map(|(id, member)| Some((*id, member.assignment.as_mut()?)))
    }

    fn world_size(&self) -> usize {
        self.assigned().count()
    }

    /// The lowest rank of the generation that is left.
    fn first(&self) -> Option<WorkerId> {
        self.assigned()
            .min_by_key(|(_, _, assignment)| assignment.rank)
            .map(|(id, _, _)| id)
    }

    fn steps_of_an_epoch(&self) -> u32 {
        let samples = self.split.as_ref().map_or(0, |split| split.train.len());
        samples.div_ceil(self.recipe.global_batch) as u32
    }
}
