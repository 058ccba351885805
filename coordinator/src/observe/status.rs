//! What `/status` shows: plain values. The driver changes its own copy, and publishes snapshots of
//! it, so that no reader ever holds up the driver.

use std::sync::Arc;

use coordinator_core::WorkerId;
use coordinator_core::event::{FinishedEpoch, WaitReason};
use serde::{Serialize, Serializer};

use tokio::sync::watch;

use super::metrics::RunState;
use crate::net::clock::unix_seconds;
use crate::store::JournalLine;

/// Events of the journal that are shown.
const EVENTS: usize = 100;

/// The status as the driver changes it, many times a second.
#[derive(Debug)]
pub(super) struct Board {
    current: Status,
    changed: bool,
    published: watch::Sender<Arc<Status>>,
}

impl Board {
    pub(super) fn new(current: Status, published: watch::Sender<Arc<Status>>) -> Self {
        Self {
            current,
            changed: true,
            published,
        }
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Status)) {
        change(&mut self.current);
        self.changed = true;
    }

    /// Gives readers a snapshot, if anything has changed since the last one. Costs a copy.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.published.send_replace(Arc::new(self.current.clone()));
        }
    }
}

/// The status with the time of day at which it is given out: browsers have clocks of their own.
#[derive(Serialize)]
pub(crate) struct Snapshot<'a> {
    now: f64,
    #[serde(flatten)]
    status: &'a Status,
}

impl<'a> Snapshot<'a> {
    /// `status`, now.
    pub(crate) fn of(status: &'a Status) -> Self {
        Self {
            now: unix_seconds(),
            status,
        }
    }
}

/// The run at a glance.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Status {
    /// Name of the run.
    pub run: String,
    /// As the label of `finetune_run_state`.
    pub state: String,
    /// What the run waits for before it can go on; `/readyz` fails while it is set.
    pub waiting_for: Option<String>,
    /// Number of the agreed membership.
    pub generation: u64,
    /// Ranks of the current generation.
    pub world_size: usize,
    /// Workers that the run is meant to have.
    pub workers_expected: usize,
    /// Workers known to the coordinator.
    pub workers: Vec<WorkerView>,
    /// The epoch under way, from 1; 0 before the first.
    pub epoch: u32,
    /// The most epochs.
    pub epochs: u32,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Mean training loss of this epoch so far.
    pub train_loss: Option<f64>,
    /// Training images per second over all ranks.
    pub images_per_second: f64,
    /// The best epoch so far.
    pub best: Option<BestEpoch>,
    /// Epochs since the best one.
    pub epochs_without_improvement: u32,
    /// Epochs without improvement that stop the run.
    pub patience: u32,
    /// All finished epochs, of former coordinators too.
    #[serde(serialize_with = "as_rows")]
    pub history: Vec<FinishedEpoch>,
    /// Of each parameter group in this epoch, from the input to the head.
    pub learning_rates: Vec<LearningRate>,
    /// Of this epoch's training, by the steps so far.
    pub epoch_seconds_left: Option<f64>,
    /// Of the run, if nothing stops it early.
    pub run_seconds_left: Option<f64>,
    /// The last events of the journal, the newest last.
    pub events: Vec<JournalLine>,
    /// Unix time of the predictions grid, once there is one.
    pub predictions_timestamp: Option<f64>,
    /// As the label of `finetune_stop_reason_info`, once the run stopped.
    pub stop_reason: Option<String>,
    /// The run directory.
    pub run_directory: String,
    /// Where workers connect.
    pub coordinator_url: String,
}

/// The best epoch so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestEpoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Its validation loss.
    pub validation_loss: f64,
    /// Its validation accuracy, 0 to 1.
    pub validation_accuracy: f64,
}

/// A finished epoch in the history; numbers that are not finite are `null`.
#[derive(Serialize)]
struct EpochRow {
    epoch: u32,
    train_loss: f64,
    validation_loss: f64,
    validation_accuracy: f64,
    images_per_second: f64,
    /// Of the last generation.
    seconds: f64,
}

fn as_rows<S: Serializer>(epochs: &[FinishedEpoch], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(epochs.iter().map(|epoch| EpochRow {
        epoch: epoch.epoch,
        train_loss: epoch.train_loss,
        validation_loss: epoch.validation_loss,
        validation_accuracy: epoch.validation_accuracy,
        images_per_second: epoch.images_per_second,
        seconds: epoch.seconds,
    }))
}

/// The learning rate of a parameter group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LearningRate {
    /// The group.
    pub group: String,
    /// Its learning rate.
    pub lr: f64,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerView {
    /// The name of its session.
    #[serde(skip)]
    pub worker: WorkerId,
    /// Its rank in the current generation.
    pub rank: Option<usize>,
    /// Its host.
    pub host: String,
    /// Its device, for example `cpu` or the name of a GPU.
    pub device: String,
    /// As the label of `finetune_workers`.
    pub state: String,
    /// The last step that it reported.
    pub step: u64,
    /// Its median busy time of a step over the group's, once all have made one.
    pub straggler_ratio: Option<f64>,
    /// Unix time of its last heartbeat.
    pub heartbeat_timestamp: Option<f64>,
}

impl Status {
    /// A run that waits for its workers.
    #[must_use]
    pub fn waiting(run: String, workers_expected: usize, epochs: u32) -> Self {
        let missing = workers_expected;
        let waiting_for = WaitReason::Workers { missing };
        Self {
            run,
            state: RunState::Waiting.label().to_owned(),
            waiting_for: Some(waiting_for.to_string()),
            workers_expected,
            epochs,
            ..Self::default()
        }
    }

    /// Adds the newest event and forgets those that are too many.
    pub fn happened(&mut self, event: JournalLine) {
        self.events.push(event);
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
    }
}
