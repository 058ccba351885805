//! Who came, who went, and how the run went on: one line for people, one for the journal.

use std::time::SystemTime;

use super::Observers;
use crate::app::open::RunHistory;
use crate::net::clock::{rfc3339, unix_seconds};
use crate::observe::metrics::{self, RunState, WorkerState};
use crate::observe::report::curves::EpochPoint;
use crate::store::JournalEntry;
use coordinator_core::WorkerId;
use coordinator_core::early_stopping::EarlyStopping;
use coordinator_core::event::{Cause, Position};

impl Observers {
    pub(super) fn joined(&mut self, joined: usize, expected: usize) {
        self.expected = expected;
        self.status.send_modify(|status| {
            status.waiting_for =
                (joined < expected).then(|| format!("{} more workers", expected - joined));
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

    pub(super) fn lost(
        &mut self,
        who: &str,
        rank: Option<u32>,
        local_rank: Option<u32>,
        when: &str,
        cause: &str,
    ) {
        self.show_lost(who, rank);
        self.missing += 1;
        self.metrics.worker_lost();
        self.progress.say(&format!("lost {who} {when}: {cause}"));
        self.journal(JournalEntry::Lost {
            who: who.to_owned(),
            rank,
            local_rank,
            when: when.to_owned(),
            cause: cause.to_owned(),
        });
    }

    pub(super) fn left(&mut self, who: &str) {
        self.progress
            .say(&format!("{who} left, as it was asked to"));
        self.journal(JournalEntry::Left {
            who: who.to_owned(),
        });
    }

    pub(super) fn waiting(&mut self, reason: String) {
        tracing::info!(reason, "waiting");
        self.enter(RunState::Waiting);
        self.status
            .send_modify(|status| status.waiting_for = Some(reason));
    }

    /// The epochs from `position` on are made again.
    pub(super) fn went_back(&mut self, position: Position) {
        self.progress.say(&format!(
            "nobody holds a later state: going on from {position}"
        ));
        self.history.retain(|point| point.epoch < position.epoch);
        self.keep(|store| store.truncate_epochs(position.epoch - 1));
        self.show_epochs();
        self.durable = self.durable.min(position);
    }

    pub(super) fn recovered(
        &mut self,
        cause: Cause,
        generation: u64,
        position: Position,
        world_size: usize,
        seconds: f64,
        steps_lost: u32,
    ) {
        let cause = match cause {
            Cause::Died => metrics::Cause::Died,
            Cause::Evicted => metrics::Cause::Evicted,
            Cause::GroupBroke => metrics::Cause::GroupBroke,
        };
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
    pub fn remember(&mut self, past: RunHistory) {
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
        for record in &past.epochs {
            self.history.push(EpochPoint {
                epoch: record.epoch,
                train_loss: record.train_loss,
                validation_loss: record.validation_loss,
                validation_accuracy: record.validation_accuracy,
            });
        }
        self.show_epochs();
    }

    /// The best epoch by the rule that the run stops by, which may pass over small gains: its
    /// number, validation loss and accuracy.
    pub(super) fn best(&self) -> Option<(u32, f64, f64)> {
        let mut stopping = EarlyStopping::new(self.stopping);
        for point in &self.history {
            stopping.observe(point.epoch, point.validation_loss);
        }
        let best = stopping.best()?.epoch;
        let point = self.history.iter().find(|point| point.epoch == best)?;
        Some((
            point.epoch,
            point.validation_loss,
            point.validation_accuracy,
        ))
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
