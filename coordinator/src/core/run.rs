//! The life of a run:
//!
//! ```text
//! Gathering ──all scanned──▶ Preparing ──all prepared──▶ Forming ──all in the group──▶ Training
//!     │                          │                          │        (epoch after epoch)  │
//!     └──────────── failure, interrupt: shut everyone down ─┴──────────────▶ Closed ◀── Finishing
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::early_stopping::{EarlyStopping, Judgement, Rule};
use super::event::{
    Action, Command, EpochReport, EpochSummary, Event, FailureKind, Notice, Outcome, Phases,
    RunError, Scan, StepReport, StopReason, WorkerId,
};
use super::schedule::Schedule;
use super::shard::{epoch_order, shard, slice_of, validation_chunks};
use super::split::Split;

/// Time since the coordinator started.
pub type Now = Duration;

/// How long the last pictures and uploads may take before the run ends without them.
const FINISH_TIMEOUT: Duration = Duration::from_secs(60);
/// A failed collective usually means a dead peer, whose broken session tells more: wait for it.
const BLAME_WAIT: Duration = Duration::from_secs(2);
/// Work granted ahead of the slowest rank, so that nobody waits for the coordinator and yet a
/// stop takes effect soon.
const GRANT_AHEAD_SECONDS: f64 = 0.5;
const GRANT_AHEAD_STEPS: std::ops::RangeInclusive<u32> = 2..=64;
/// Tiles of the final picture.
const SHOWN: usize = 16;

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
            Event::ExitedEarly { slot, status } => {
                if !self
                    .members
                    .values()
                    .any(|member| member.slot == Some(slot))
                {
                    self.fail(RunError::ExitedEarly { slot, status }, &mut out);
                }
            }
            Event::Interrupt => self.stop_early(now, StopReason::Interrupted, &mut out),
            Event::Tick => self.on_tick(now, &mut out),
        }
        out
    }

    fn on_joined(
        &mut self,
        worker: WorkerId,
        host: String,
        slot: Option<u32>,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Gathering) || self.members.len() >= self.recipe.workers {
            let reason = format!("the run already has its {} workers", self.recipe.workers);
            out.push(Action::Send(
                worker,
                Command::Shutdown {
                    reason,
                    abort: false,
                },
            ));
            return;
        }
        self.members.insert(
            worker,
            Member {
                host: host.clone(),
                slot,
                scan: None,
                preparing: 0,
                prepared: false,
                rank: 0,
                in_group: false,
                completed: 0,
                report: None,
                finished: false,
            },
        );
        out.push(Action::Notify(Notice::Member {
            worker,
            host,
            joined: self.members.len(),
            expected: self.recipe.workers,
        }));
    }

    fn on_scanned(&mut self, worker: WorkerId, mut scan: Scan, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Gathering) || !self.members.contains_key(&worker) {
            return;
        }
        let other = self.members.values().find(|member| member.scan.is_some());
        if let Some(member) = other
            && let Some(first) = &member.scan
            && first.fingerprint != scan.fingerprint
        {
            let host = self
                .members
                .get(&worker)
                .map_or("", |member| member.host.as_str());
            let message = different_data(&member.host, first, &self.files, host, &scan);
            return self.fail(RunError::Data(message), out);
        }
        let files = std::mem::take(&mut scan.files);
        if other.is_none() {
            self.files = files;
            self.classes = scan.classes.clone();
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.scan = Some(scan);
        }
        if self.members.len() == self.recipe.workers && self.all(|member| member.scan.is_some()) {
            self.prepare(out);
        }
    }

    /// Workers of the launcher share one cache and decode a part of it each; every other
    /// worker decodes all for itself.
    fn prepare(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Preparing;
        let all: Vec<u32> = (0..self.files.len() as u32).collect();
        let sharing: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|(_, m)| m.slot.is_some())
            .map(|(id, _)| *id)
            .collect();
        for worker in self.members.keys() {
            let place = sharing.iter().position(|id| id == worker);
            let samples = match place {
                Some(place) => slice_of(&all, place, sharing.len()).to_vec(),
                None => all.clone(),
            };
            let command = Command::Prepare {
                samples,
                images: all.len(),
                shared: place.is_some(),
            };
            out.push(Action::Send(*worker, command));
        }
    }

    fn on_preparing(&mut self, worker: WorkerId, done: u32, out: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.preparing = done;
        }
        let sharing = self.members.values().any(|member| member.slot.is_some());
        let total = self.files.len() * if sharing { 1 } else { self.members.len() };
        let done = self
            .members
            .values()
            .map(|member| member.preparing as usize)
            .sum();
        out.push(Action::Notify(Notice::Preparing { done, total }));
    }

    fn on_prepared(&mut self, worker: WorkerId, bad: Vec<(u32, String)>, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Preparing) {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.prepared = true;
        self.bad.extend(bad);
        if !self.all(|member| member.prepared) {
            return;
        }
        for (sample, reason) in &self.bad {
            let path = self
                .files
                .get(*sample as usize)
                .map_or_else(String::new, |f| f.0.clone());
            if self.recipe.strict_data {
                let message = format!(
                    "{path}: {reason} (--strict-data is on; {} such files)",
                    self.bad.len()
                );
                return self.fail(RunError::Data(message), out);
            }
            out.push(Action::Notify(Notice::BadFile {
                path,
                reason: reason.clone(),
            }));
        }
        let good: Vec<u32> = (0..self.files.len() as u32)
            .filter(|sample| !self.bad.contains_key(sample))
            .collect();
        let split = Split::new(&good, self.recipe.validation_fraction, self.recipe.seed);
        let Some(split) = split else {
            let message = format!("only {} usable images: at least 2 are needed", good.len());
            return self.fail(RunError::Data(message), out);
        };
        self.split = split;
        out.push(Action::Notify(Notice::SplitReady {
            classes: self.classes.clone(),
            files: self.files.iter().map(|(path, _)| path.clone()).collect(),
            split: self.split.clone(),
        }));
        self.form(out);
    }

    /// Ranks follow the launcher's slots, then the order of joining.
    fn form(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Forming;
        self.generation += 1;
        let mut order: Vec<WorkerId> = self.members.keys().copied().collect();
        order.sort_by_key(|id| (self.members[id].slot.unwrap_or(u32::MAX), *id));
        for (worker, rank) in order.iter().zip(0..) {
            if let Some(member) = self.members.get_mut(worker) {
                member.rank = rank;
                member.in_group = false;
            }
        }
        if let Some(first) = order.first() {
            out.push(Action::Send(*first, self.assignment(0, None)));
        }
        out.push(Action::Notify(Notice::GroupFormed {
            generation: self.generation,
            world_size: self.members.len() as u32,
            backend: if self.nccl() { "NCCL" } else { "Gloo" },
            precision: if self.bf16() { "bf16" } else { "fp32" },
        }));
    }

    fn assignment(&self, rank: u32, store: Option<String>) -> Command {
        Command::Assign {
            generation: self.generation,
            rank,
            world_size: self.members.len() as u32,
            store,
            nccl: self.nccl(),
            bf16: self.bf16(),
        }
    }

    fn nccl(&self) -> bool {
        self.all(|m| {
            m.scan
                .as_ref()
                .is_some_and(|scan| scan.device.starts_with("cuda"))
        })
    }

    fn bf16(&self) -> bool {
        match self.recipe.precision {
            Precision::Fp32 => false,
            Precision::Bf16 => true,
            Precision::Auto => {
                self.all(|m| m.scan.as_ref().is_some_and(|scan| scan.bf16_in_silicon))
            }
        }
    }

    fn on_store(
        &mut self,
        worker: WorkerId,
        generation: u64,
        address: &str,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Forming) || generation != self.generation {
            return;
        }
        if self
            .members
            .get(&worker)
            .is_none_or(|member| member.rank != 0)
        {
            return;
        }
        for (id, member) in &self.members {
            if member.rank != 0 {
                let command = self.assignment(member.rank, Some(address.to_owned()));
                out.push(Action::Send(*id, command));
            }
        }
    }

    fn on_group_ready(
        &mut self,
        now: Now,
        worker: WorkerId,
        generation: u64,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.phase, Phase::Forming) || generation != self.generation {
            return;
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.in_group = true;
        }
        if self.all(|member| member.in_group) {
            self.start_epoch(now, 1, 0.0, out);
        }
    }

    fn start_epoch(&mut self, now: Now, epoch: u32, step_seconds: f64, out: &mut Vec<Action>) {
        let order = epoch_order(&self.split.train, self.recipe.seed, epoch);
        let steps = order.len().div_ceil(self.recipe.global_batch) as u32;
        let granted = steps.min(ahead(step_seconds));
        let rates = self.recipe.schedule.rates(epoch);
        let world_size = self.members.len();
        for (id, member) in &mut self.members {
            member.completed = 0;
            member.report = None;
            let rank = member.rank as usize;
            let plan = Command::Plan {
                generation: self.generation,
                epoch,
                shard: shard(&order, self.recipe.global_batch, rank, world_size),
                rates,
                validation: validation_chunks(
                    &self.split.validation,
                    self.recipe.validation_chunk,
                    rank,
                    world_size,
                ),
                granted,
            };
            out.push(Action::Send(*id, plan));
        }
        let samples = order.len() as u32;
        out.push(Action::Notify(Notice::EpochStarted {
            epoch,
            steps,
            samples,
            rates,
        }));
        self.phase = Phase::Training(Training {
            epoch,
            steps,
            granted,
            started: now,
            trained: None,
            step_seconds,
        });
    }

    fn on_step(&mut self, now: Now, worker: WorkerId, report: StepReport, out: &mut Vec<Action>) {
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let current = report.generation == self.generation && report.epoch == training.epoch;
        if !current || report.completed <= member.completed || report.completed > training.granted {
            return;
        }
        let steps = f64::from(report.completed - member.completed);
        member.completed = report.completed;
        let seconds = report.seconds / steps;
        training.step_seconds = match training.step_seconds {
            0.0 => seconds,
            known => 0.9 * known + 0.1 * seconds,
        };
        let finite = report.loss_sum.is_finite();
        out.push(Action::Notify(Notice::Step {
            rank: member.rank,
            report,
        }));
        let slowest = self
            .members
            .values()
            .map(|member| member.completed)
            .min()
            .unwrap_or(0);
        if slowest >= training.steps && training.trained.is_none() {
            training.trained = Some(now);
        }
        if !finite {
            return self.stop_early(now, StopReason::NonFiniteLoss, out);
        }
        if let Some(reason) = self.interrupted {
            return self.stop_if_parked(now, reason, out);
        }
        let wanted = training.steps.min(slowest + ahead(training.step_seconds));
        if wanted > training.granted {
            training.granted = wanted;
            let (generation, epoch) = (self.generation, training.epoch);
            for id in self.members.keys() {
                let grant = Command::Grant {
                    generation,
                    epoch,
                    granted: wanted,
                };
                out.push(Action::Send(*id, grant));
            }
        }
    }

    /// Ends training at the next step boundary that all ranks will reach.
    fn stop_early(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Training(_) => {
                if self.interrupted.is_none() {
                    self.interrupted = Some(reason);
                    out.push(Action::Notify(Notice::Stopping(reason)));
                }
                self.stop_if_parked(now, reason, out);
            }
            Phase::Finishing { .. } | Phase::Closed => {}
            Phase::Gathering | Phase::Preparing | Phase::Forming => {
                out.push(Action::Notify(Notice::Stopping(reason)));
                self.close(Ok(reason), true, out);
            }
        }
    }

    /// All ranks wait for a grant that will not come. When the epoch's last step is granted,
    /// they do not park, and the barrier at its end takes the stop into account.
    fn stop_if_parked(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        let parked = training.granted < training.steps
            && self.all(|member| member.completed >= training.granted);
        if parked {
            self.finish(now, reason, out);
        }
    }

    fn on_epoch(&mut self, now: Now, worker: WorkerId, report: EpochReport, out: &mut Vec<Action>) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        if report.generation != self.generation || report.epoch != training.epoch {
            return;
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.report = Some(report);
        }
        if self.all(|member| member.report.is_some()) {
            self.judge_epoch(now, out);
        }
    }

    fn judge_epoch(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        let reports: Vec<EpochReport> = self
            .members
            .values_mut()
            .filter_map(|member| member.report.take())
            .collect();
        let (epoch, step_seconds) = (training.epoch, training.step_seconds);
        let totals = Totals::of(&reports);
        let expected = (self.split.train.len(), self.split.validation.len());
        if (totals.trained, totals.validated) != expected {
            let message = format!(
                "epoch {epoch} used {} training and {} validation samples instead of {} and {}",
                totals.trained, totals.validated, expected.0, expected.1
            );
            return self.fail(RunError::Internal(message), out);
        }
        let judgement = self.stopping.observe(epoch, totals.validation_loss);
        let improved = judgement == Judgement::Improved;
        let seconds = (training.trained.unwrap_or(now) - training.started).as_secs_f64();
        let finite = totals.train_loss.is_finite() && totals.validation_loss.is_finite();
        let reason = match judgement {
            _ if !finite => Some(StopReason::NonFiniteLoss),
            _ if self.interrupted.is_some() => self.interrupted,
            Judgement::OutOfPatience => Some(StopReason::Patience),
            _ if epoch >= self.recipe.schedule.epochs => Some(StopReason::MaxEpochs),
            _ => None,
        };
        out.push(Action::Notify(Notice::EpochEnded(EpochSummary {
            epoch,
            train_loss: totals.train_loss,
            validation_loss: totals.validation_loss,
            validation_accuracy: totals.accuracy,
            validated: totals.validated as u64,
            rates: self.recipe.schedule.rates(epoch),
            images_per_second: totals.trained as f64 / seconds.max(1e-9),
            phases: totals.phases,
            seconds: (now - training.started).as_secs_f64(),
            world_size: self.members.len() as u32,
            generation: self.generation,
            improved,
            best: self.stopping.best(),
            wait: self.stopping.wait(),
        })));
        if improved {
            self.awaited_state = Some(epoch);
        }
        for id in self.members.keys() {
            let verdict = Command::Verdict {
                generation: self.generation,
                epoch,
                improved,
                validation_loss: totals.validation_loss,
            };
            out.push(Action::Send(*id, verdict));
        }
        match reason {
            None => self.start_epoch(now, epoch + 1, step_seconds, out),
            Some(reason) => {
                if self.interrupted.is_none() {
                    out.push(Action::Notify(Notice::Stopping(reason)));
                }
                self.finish(now, reason, out);
            }
        }
    }

    fn finish(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        let spacing = (self.split.validation.len() / SHOWN).max(1);
        let show: Vec<u32> = self
            .split
            .validation
            .iter()
            .step_by(spacing)
            .take(SHOWN)
            .copied()
            .collect();
        let show = if self.stopping.best().is_some() {
            show
        } else {
            Vec::new()
        };
        for id in self.members.keys() {
            let finish = Command::Finish {
                generation: self.generation,
                show: show.clone(),
            };
            out.push(Action::Send(*id, finish));
        }
        self.phase = Phase::Finishing {
            reason,
            until: now + FINISH_TIMEOUT,
        };
    }

    fn close_if_finished(&mut self, out: &mut Vec<Action>) {
        if let Phase::Finishing { reason, .. } = self.phase
            && self.awaited_state.is_none()
            && self.all(|member| member.finished)
        {
            self.close(Ok(reason), false, out);
        }
    }

    fn on_failed(
        &mut self,
        now: Now,
        worker: WorkerId,
        kind: FailureKind,
        message: String,
        out: &mut Vec<Action>,
    ) {
        if !self.members.contains_key(&worker) {
            return;
        }
        match kind {
            FailureKind::Data => self.fail(RunError::Data(message), out),
            FailureKind::Weights => self.fail(RunError::Weights(message), out),
            FailureKind::Environment => self.fail(RunError::Environment(message), out),
            FailureKind::Internal => {
                let message = format!("{}: {message}", self.describe(worker));
                self.fail(RunError::Internal(message), out);
            }
            FailureKind::Collective => {
                self.blame.get_or_insert((now, worker, message));
            }
        }
    }

    fn on_lost(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get(&worker) else {
            return;
        };
        let finished = matches!(self.phase, Phase::Finishing { .. }) && member.finished;
        let itself = self
            .blame
            .as_ref()
            .is_some_and(|(_, blamed, _)| *blamed == worker);
        if finished || (itself && self.members.len() > 1) {
            return;
        }
        let cause = "its session broke".to_owned();
        self.fail(self.worker_lost(worker, cause), out);
    }

    fn worker_lost(&self, worker: WorkerId, cause: String) -> RunError {
        let (slot, step) = self
            .members
            .get(&worker)
            .map_or((None, 0), |member| (member.slot, member.completed));
        let epoch = match &self.phase {
            Phase::Training(training) => training.epoch,
            _ => 0,
        };
        RunError::WorkerLost {
            who: self.describe(worker),
            slot,
            epoch,
            step,
            cause,
        }
    }

    fn on_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some((since, worker, message)) = &self.blame
            && now.saturating_sub(*since) >= BLAME_WAIT
        {
            let error = self.worker_lost(*worker, message.clone());
            return self.fail(error, out);
        }
        if let Phase::Finishing { reason, until } = self.phase
            && now >= until
        {
            self.close(Ok(reason), true, out);
        }
    }

    fn describe(&self, worker: WorkerId) -> String {
        match (self.members.get(&worker), self.generation) {
            (Some(member), 1..) => format!("rank {} on {}", member.rank, member.host),
            (Some(member), 0) => format!("{worker} on {}", member.host),
            (None, _) => worker.to_string(),
        }
    }

    fn fail(&mut self, error: RunError, out: &mut Vec<Action>) {
        self.close(Err(error), true, out);
    }

    fn close(&mut self, outcome: Outcome, abort: bool, out: &mut Vec<Action>) {
        let reason = match &outcome {
            Ok(reason) => reason.as_str().to_owned(),
            Err(error) => error.to_string(),
        };
        for id in self.members.keys() {
            out.push(Action::Send(
                *id,
                Command::Shutdown {
                    reason: reason.clone(),
                    abort,
                },
            ));
        }
        self.phase = Phase::Closed;
        out.push(Action::End(outcome));
    }

    fn all(&self, holds: impl Fn(&Member) -> bool) -> bool {
        !self.members.is_empty() && self.members.values().all(holds)
    }
}

fn ahead(step_seconds: f64) -> u32 {
    let steps = if step_seconds > 0.0 {
        (GRANT_AHEAD_SECONDS / step_seconds).ceil() as u32
    } else {
        0
    };
    steps.clamp(*GRANT_AHEAD_STEPS.start(), *GRANT_AHEAD_STEPS.end())
}

struct Totals {
    train_loss: f64,
    trained: usize,
    validation_loss: f64,
    accuracy: f64,
    validated: usize,
    phases: Phases,
}

impl Totals {
    /// Adds in f64, chunk by chunk in the order of the validation set: the same for any world.
    fn of(reports: &[EpochReport]) -> Self {
        let trained: usize = reports.iter().map(|report| report.samples as usize).sum();
        let loss: f64 = reports.iter().map(|report| report.loss_sum).sum();
        let mut chunks: Vec<_> = reports
            .iter()
            .flat_map(|report| &report.validation)
            .collect();
        chunks.sort_by_key(|sum| sum.chunk);
        chunks.dedup_by_key(|sum| sum.chunk);
        let validated: usize = chunks.iter().map(|sum| sum.samples as usize).sum();
        let validation: f64 = chunks.iter().map(|sum| sum.loss_sum).sum();
        let correct: u32 = chunks.iter().map(|sum| sum.correct).sum();
        let mean = |seconds: fn(&Phases) -> f64| {
            reports
                .iter()
                .map(|report| seconds(&report.phases))
                .sum::<f64>()
                / reports.len() as f64
        };
        Self {
            train_loss: loss / trained as f64,
            trained,
            validation_loss: validation / validated as f64,
            accuracy: f64::from(correct) / validated as f64,
            validated,
            phases: Phases {
                data_wait: mean(|p| p.data_wait),
                forward_backward: mean(|p| p.forward_backward),
                allreduce_wait: mean(|p| p.allreduce_wait),
                optimizer: mean(|p| p.optimizer),
                validation: mean(|p| p.validation),
            },
        }
    }
}

/// The message for two workers whose folders differ, with the first path that does.
fn different_data(
    host_a: &str,
    a: &Scan,
    files_a: &[(String, u64)],
    host_b: &str,
    b: &Scan,
) -> String {
    let all: BTreeSet<_> = files_a.iter().chain(&b.files).collect();
    let in_a: BTreeSet<_> = files_a.iter().collect();
    let in_b: BTreeSet<_> = b.files.iter().collect();
    let differs = all
        .iter()
        .find(|file| in_a.contains(*file) != in_b.contains(*file));
    let path = differs.map_or("(none)", |file| file.0.as_str());
    format!(
        "workers see different data: {} on {host_a}, {} on {host_b}; first difference: {path}",
        short(&a.fingerprint),
        short(&b.fingerprint)
    )
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}
