//! What the page shows beyond the moment: the epochs so far, and each worker's last heartbeat.
//! The status is its only copy.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Observers;
use crate::net::clock::unix_seconds;
use crate::observe::console::{StepView, seconds_left};
use crate::observe::metrics::WorkerState;
use crate::observe::status::{BestEpoch, LearningRate, WorkerView};
use coordinator_core::event::{MemberInfo, Ranked};
use coordinator_core::schedule::{GroupLrs, by_group};

impl Observers {
    /// The finished epochs, after any change of them.
    pub(super) fn show_epochs(&mut self) {
        let epochs = self.finished.clone();
        let last = epochs.last().map_or(0, |epoch| epoch.epoch);
        let best = self.best().cloned();
        let wait = self.stopping.wait;
        self.status.change(|status| {
            status.last_epoch = epochs.last().cloned();
            status.history = epochs;
            status.best = best.map(|epoch| BestEpoch {
                epoch: epoch.epoch,
                validation_loss: epoch.validation_loss,
                validation_accuracy: epoch.validation_accuracy,
            });
            status.epochs_without_improvement = wait;
            // Of a run that goes on, before its first step.
            if status.epoch == 0 {
                status.epoch = last;
            }
        });
    }

    pub(super) fn show_rates(&mut self, lrs: GroupLrs) {
        self.status.change(|status| {
            status.learning_rates = by_group(lrs)
                .map(|(group, lr)| LearningRate {
                    group: group.to_owned(),
                    lr,
                })
                .collect();
        });
    }

    pub(super) fn show_time_left(&mut self, view: &StepView) {
        let last_epoch = self.finished.last().map(|epoch| epoch.seconds);
        let left = seconds_left(view, last_epoch);
        self.status.change(|status| {
            status.epoch_seconds_left = left.map(|(epoch, _)| epoch);
            status.run_seconds_left = left.map(|(_, run)| run);
        });
    }

    /// The predictions were drawn, or drawn again.
    pub fn predictions_drawn(&mut self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.status
            .change(|status| status.predictions_timestamp = Some(since.as_secs_f64()));
    }

    /// A worker joined: until the next group is formed it has no rank.
    pub(super) fn show_newcomer(&mut self, member: &MemberInfo) {
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
        self.status.change(|status| status.workers.push(newcomer));
    }

    /// A group is formed; its ranks come first, each in its place.
    pub(super) fn show_group(&mut self, ranks: Vec<Ranked>) {
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
        self.status.change(|status| status.workers = group);
    }

    /// A member is gone: a rank is shown as lost, until another holds it.
    pub(super) fn show_lost(&mut self, member: &MemberInfo) {
        self.status.change(|status| {
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
    pub(super) fn show_rank(&mut self, rank: usize, change: impl FnOnce(&mut WorkerView)) {
        self.status.change(|status| {
            if let Some(view) = status.workers.get_mut(rank) {
                change(view);
            }
        });
    }
}
