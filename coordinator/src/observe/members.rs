//! Who came, who went, and how the run went on: one line for people, one for the journal.

use std::time::SystemTime;

use super::Observers;
use crate::app::open::RunHistory;
use crate::net::clock::{rfc3339, unix_seconds};
use crate::observe::metrics::{RunState, WorkerState};
use crate::store::JournalEntry;
use coordinator_core::WorkerId;
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::{
    FinishedEpoch, Location, LossCause, MemberInfo, OutageCause, Position, WaitReason,
};

impl Observers {
    pub(super) fn joined(&mut self, joined: usize, expected: usize) {
        self.expected = expected;
        self.status.send_modify(|status| {
            status.waiting_for = (joined < expected).then(|| {
                let missing = expected - joined;
                WaitReason::Workers { missing }.to_string()
            });
        });
        tracing::info!(joined, expected, "a worker joined");
    }

    /// Takes into account how many have joined, and how many of them are in the generation.
    pub fn census(&mut self, joined: usize, healthy: usize) {
        // Whoever came or came back fills the place of one that was lost.
        self.missing = self.missing.min(self.expected.saturating_sub(joined));
        self.metrics.set_workers(WorkerState::Joined, joined);
        self.metrics.set_workers(WorkerState::Healthy, healthy);
        self.metrics.set_workers(WorkerState::Lost, self.missing);
    }

    /// A worker was heard of.
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
        self.journal(JournalEntry::Lost {
            who: member.to_string(),
            rank: member.rank,
            local_rank: member.local_rank,
            when: location.to_string(),
            cause: cause.to_string(),
        });
    }

    pub(super) fn left(&mut self, member: &MemberInfo) {
        self.progress
            .say(&format!("{member} left, as it was asked to"));
        let who = member.to_string();
        self.journal(JournalEntry::Left { who });
    }

    pub(super) fn waiting(&mut self, reason: &WaitReason) {
        tracing::info!(%reason, "waiting");
        self.enter(RunState::Waiting);
        self.status
            .send_modify(|status| status.waiting_for = Some(reason.to_string()));
    }

    /// The epochs from `position` on are made again.
    pub(super) fn rolled_back(&mut self, position: Position, stopping: Standing) {
        self.progress.say(&format!(
            "rolled back to {position}: no newer state available"
        ));
        self.stopping = stopping;
        self.keep(|store| store.truncate_epochs(position.epoch - 1));
        self.show_epochs();
        self.durable = self.durable.min(position);
    }

    pub(super) fn recovered(
        &mut self,
        cause: OutageCause,
        generation: u64,
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
        self.journal(JournalEntry::Recovered {
            generation,
            world_size,
            epoch: position.epoch,
            completed: position.completed,
            seconds,
            steps_lost,
        });
    }

    /// Learns what a former coordinator left.
    pub fn remember(&mut self, past: RunHistory, stopping: Standing) {
        for corrupt in &past.corrupt {
            self.corrupt(corrupt);
        }
        self.progress.say(&format!(
            "resuming after {} epochs{}",
            past.epochs.len(),
            match past.checkpoint {
                Some(position) => format!("; the newest checkpoint is at {position}"),
                None => String::new(),
            }
        ));
        self.durable = past.checkpoint.unwrap_or(self.durable);
        self.stopping = stopping;
        self.show_epochs();
    }

    /// The best epoch, by the rule that the run stops by.
    pub(super) fn best(&self) -> Option<&FinishedEpoch> {
        let best = self.stopping.best?.epoch;
        self.store.epochs().iter().find(|epoch| epoch.epoch == best)
    }

    /// A checkpoint is durable.
    pub fn checkpoint(&mut self, position: Position, bytes: u64, seconds: f64) {
        let now = unix_seconds();
        self.metrics.checkpoint(now, bytes);
        self.durable = self.durable.max(position);
        self.show_lag();
        self.journal(JournalEntry::Checkpoint {
            epoch: position.epoch,
            completed: position.completed,
            bytes,
            seconds,
        });
    }

    /// A checkpoint was found to be of no use. It may be found again.
    pub fn corrupt(&mut self, reason: &str) {
        if !self.corrupt.insert(reason.to_owned()) {
            return;
        }
        self.progress.say(reason);
        self.journal(JournalEntry::CorruptCheckpoint {
            reason: reason.to_owned(),
        });
    }

    /// Writes a line of the journal.
    pub fn journal(&mut self, entry: JournalEntry) {
        let now = SystemTime::now();
        if let Err(error) = self.journal.append_at(now, &entry) {
            self.broken(error.into());
        }
        self.show_event(rfc3339(now), entry);
    }
}
