//! Workers that join and leave, and how the run goes on: metrics, status and a line for people.

use std::time::SystemTime;

use super::Observers;
use crate::net::clock::{rfc3339, unix_seconds};
use crate::observe::metrics::{RankFacts, RunState, WorkerState};
use crate::observe::status::EventView;
use crate::observe::stragglers::Stragglers;
use crate::store::{JournalEntry, RunHistory};
use coordinator_core::WorkerId;
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{
    Backend, ComputeType, FinishedEpoch, Location, LossCause, MemberInfo, OutageCause, Position,
    Ranked, WaitReason,
};

impl Observers {
    pub(super) fn joined(&mut self, joined: usize, expected: usize) {
        self.expected = expected;
        self.status.change(|status| {
            status.waiting_for = (joined < expected).then(|| {
                let missing = expected - joined;
                WaitReason::Workers { missing }.to_string()
            });
        });
        tracing::info!(joined, expected, "a worker joined");
    }

    /// Shows how many workers have joined, and how many of them are in the generation, and gives
    /// readers the newest status. To be called a few times a second.
    pub fn tick(&mut self, joined: usize, healthy: usize) {
        self.census(joined, healthy);
        self.status.publish();
    }

    pub(super) fn census(&mut self, joined: usize, healthy: usize) {
        // A worker that joins takes the place of one that was lost.
        self.missing = self.missing.min(self.expected.saturating_sub(joined));
        self.metrics.set_workers(WorkerState::Joined, joined);
        self.metrics.set_workers(WorkerState::Healthy, healthy);
        self.metrics.set_workers(WorkerState::Lost, self.missing);
    }

    /// A worker sent a heartbeat.
    pub fn heard(&mut self, worker: WorkerId) {
        if let Some(rank) = self.ranks.get(&worker).copied() {
            let now = unix_seconds();
            self.metrics.heard(rank, now);
            self.show_rank(rank, |view| view.heartbeat_timestamp = Some(now));
        }
    }

    pub(super) fn lost(&mut self, member: &MemberInfo, location: Location, cause: &LossCause) {
        self.show_lost(member);
        self.missing += 1;
        self.metrics.worker_lost();
        self.progress
            .say(&format!("lost {member} {location}: {cause}"));
    }

    /// Workers of one machine, and those that rejoin, report the same: it is printed once.
    pub(super) fn warned(&mut self, line: String) {
        if !self.warnings.contains(&line) {
            self.progress.say(&line);
            self.warnings.insert(line);
        }
    }

    pub(super) fn group_formed(
        &mut self,
        generation: u64,
        ranks: Vec<Ranked>,
        backend: Backend,
        precision: ComputeType,
    ) {
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
        self.status.change(|status| {
            status.generation = generation;
            status.world_size = world_size;
        });
        self.progress.say(&format!(
            "group: {world_size} ranks over {backend}, computing in {precision}"
        ));
    }

    pub(super) fn left(&mut self, member: &MemberInfo) {
        self.progress
            .say(&format!("{member} left, as it was asked to"));
    }

    pub(super) fn waiting(&mut self, reason: &WaitReason) {
        tracing::info!(%reason, "waiting");
        self.enter(RunState::Waiting);
        self.status
            .change(|status| status.waiting_for = Some(reason.to_string()));
    }

    /// The epochs from `position` on are trained again.
    pub(super) fn rolled_back(&mut self, position: Position, stopping: Standing) {
        self.progress.say(&format!(
            "rolled back to {position}: no newer state available"
        ));
        self.stopping = stopping;
        self.finished.retain(|epoch| epoch.epoch < position.epoch);
        self.show_epochs();
        self.durable = self.durable.min(position);
    }

    pub(super) fn recovered(
        &mut self,
        cause: OutageCause,
        position: Position,
        world_size: usize,
        seconds: f64,
        steps_lost: u32,
    ) {
        self.metrics.recovered(cause, seconds);
        self.trace(|traces| traces.recovered(cause, seconds, steps_lost));
        self.progress.say(&format!(
            "recovered in {seconds:.1} s: {world_size} ranks go on from {position}{}",
            match steps_lost {
                0 => String::new(),
                1 => "; 1 step is made again".to_owned(),
                lost => format!("; {lost} steps are made again"),
            }
        ));
    }

    /// Shows what a former coordinator left of the run.
    pub fn remember(&mut self, history: &RunHistory, stopping: Standing) {
        self.progress.say(&format!(
            "resuming after {} epochs{}",
            history.epochs.len(),
            match history.checkpoint {
                Some(position) => format!("; the newest checkpoint is at {position}"),
                None => String::new(),
            }
        ));
        self.durable = history.position();
        self.stopping = stopping;
        self.finished.clone_from(&history.epochs);
        self.show_epochs();
        if let Some(at) = history.predictions {
            self.predictions_drawn(at);
        }
    }

    /// The best epoch, by the rule that the run stops by.
    pub(super) fn best(&self) -> Option<&FinishedEpoch> {
        let best = self.stopping.best?.epoch;
        self.finished.iter().find(|epoch| epoch.epoch == best)
    }

    /// A checkpoint is durable.
    pub fn checkpoint(&mut self, position: Position, bytes: u64) {
        self.metrics.checkpoint(unix_seconds(), bytes);
        self.durable = self.durable.max(position);
        self.show_lag();
    }

    /// Shows the events that are in the journal already.
    pub fn remember_events(&mut self, events: Vec<(String, JournalEntry)>) {
        self.status.change(|status| {
            for (time, entry) in events {
                status.happened(EventView { time, entry });
            }
        });
    }

    /// Shows an event of the journal.
    pub fn happened(&mut self, at: SystemTime, entry: JournalEntry) {
        let time = rfc3339(at);
        self.status
            .change(|status| status.happened(EventView { time, entry }));
    }
}
