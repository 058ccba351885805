//! What the page shows beyond the moment: the epochs so far, the last events, and each worker's
//! sign of life. The status is its only copy.

use std::time::UNIX_EPOCH;

use super::Observers;
use crate::net::clock::unix_seconds;
use crate::observe::console::{StepView, seconds_left};
use crate::observe::metrics::WorkerState;
use crate::observe::status::{BestEpoch, EventView, LearningRate, WorkerView};
use crate::store::{JournalEntry, PREDICTIONS};
use coordinator_core::event::{MemberInfo, Ranked};
use coordinator_core::schedule::{GroupLrs, by_group};

impl Observers {
    /// What the run directory says of the time before this process.
    pub(super) fn show_past(&mut self) {
        let events = self.journal.entries().unwrap_or_else(|error| {
            self.broken(error.into());
            Vec::new()
        });
        let patience = self.patience;
        self.status.send_modify(|status| {
            status.patience = patience;
            for (time, entry) in events {
                status.happened(EventView { time, entry });
            }
        });
        self.show_predictions();
    }

    /// The judged epochs, after any change of them.
    pub(super) fn show_epochs(&self) {
        let epochs = self.store.epochs();
        let last = epochs.last().map_or(0, |epoch| epoch.epoch);
        let best = self.best();
        self.status.send_modify(|status| {
            status.history = epochs.to_vec();
            status.last_epoch = epochs.last().cloned();
            status.best = best.map(|epoch| BestEpoch {
                epoch: epoch.epoch,
                validation_loss: epoch.validation_loss,
                validation_accuracy: epoch.validation_accuracy,
            });
            status.epochs_without_improvement = self.stopping.wait;
            // Of a run that goes on, before its first step.
            if status.epoch == 0 {
                status.epoch = last;
            }
        });
    }

    pub(super) fn show_event(&self, time: String, entry: JournalEntry) {
        self.status
            .send_modify(|status| status.happened(EventView { time, entry }));
    }

    pub(super) fn show_rates(&self, lrs: GroupLrs) {
        self.status.send_modify(|status| {
            status.learning_rates = by_group(lrs)
                .map(|(group, lr)| LearningRate {
                    group: group.to_owned(),
                    lr,
                })
                .collect();
        });
    }

    pub(super) fn show_time_left(&self, view: &StepView) {
        let last_epoch = self.store.epochs().last().map(|epoch| epoch.seconds);
        let left = seconds_left(view, last_epoch);
        self.status.send_modify(|status| {
            status.epoch_seconds_left = left.map(|(epoch, _)| epoch);
            status.run_seconds_left = left.map(|(_, run)| run);
        });
    }

    /// The picture is there, or anew.
    pub(super) fn show_predictions(&self) {
        let drawn = std::fs::metadata(self.store.root().join(PREDICTIONS))
            .and_then(|picture| picture.modified())
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.status.send_modify(|status| {
            status.predictions_timestamp = drawn.map(|since| since.as_secs_f64());
        });
    }

    /// A worker joined: until the next group is formed it has no rank.
    pub(super) fn show_newcomer(&self, member: &MemberInfo) {
        let newcomer = WorkerView {
            worker: member.worker,
            rank: None,
            host: member.host.clone(),
            device: String::new(),
            state: WorkerState::Joined.label().to_owned(),
            step: 0,
            straggler_ratio: None,
            heartbeat_timestamp: Some(unix_seconds()),
        };
        self.status
            .send_modify(|status| status.workers.push(newcomer));
    }

    /// A group is formed; its ranks come first, each in its place.
    pub(super) fn show_group(&self, ranks: Vec<Ranked>) {
        let view = |(rank, of): (usize, Ranked)| WorkerView {
            worker: of.worker,
            rank: Some(rank),
            host: of.host,
            device: of.device,
            state: WorkerState::Healthy.label().to_owned(),
            step: 0,
            straggler_ratio: None,
            heartbeat_timestamp: None,
        };
        let group = ranks.into_iter().enumerate().map(view).collect();
        self.status.send_modify(|status| status.workers = group);
    }

    /// A member is gone: a rank is shown as lost, until another holds it.
    pub(super) fn show_lost(&self, member: &MemberInfo) {
        self.status.send_modify(|status| {
            let workers = &mut status.workers;
            let at = workers.iter().position(|view| view.worker == member.worker);
            match (at, member.rank) {
                (Some(at), Some(_)) => {
                    WorkerState::Lost.label().clone_into(&mut workers[at].state);
                }
                (Some(at), None) => drop(workers.remove(at)),
                (None, _) => {}
            }
        });
    }

    /// Changes what is shown of a rank; of 1,000 too, many times a second.
    pub(super) fn show_rank(&self, rank: usize, change: impl FnOnce(&mut WorkerView)) {
        self.status
            .send_if_modified(|status| status.workers.get_mut(rank).map(change).is_some());
    }
}
