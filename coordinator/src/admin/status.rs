//! What `/status` shows: plain values, published by the run's owner through a watch channel.

use serde::Serialize;

use crate::store::EpochRecord;

/// The run at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Name of the run.
    pub run: String,
    /// As the label of `finetune_run_state`.
    pub state: String,
    /// What the run waits for before it can go on, in words; `/readyz` fails while it is set.
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
    /// Training pictures per second over all ranks.
    pub images_per_second: f64,
    /// The best epoch so far.
    pub best: Option<BestEpoch>,
    /// The last finished epoch, as in `metrics.jsonl`.
    pub last_epoch: Option<EpochRecord>,
    /// As the label of `finetune_stop_reason_info`, once the run stopped.
    pub stop_reason: Option<String>,
    /// Where the results lie.
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

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerView {
    /// Its rank in the current generation.
    pub rank: Option<usize>,
    /// Its host.
    pub host: String,
    /// Its device, for example `cpu` or the name of a GPU.
    pub device: String,
    /// What it is doing, in a word.
    pub state: String,
    /// The last step that it reported.
    pub step: u64,
}

impl Status {
    /// A run that waits for its workers.
    #[must_use]
    pub fn waiting(run: String, workers_expected: usize, epochs: u32) -> Self {
        Self {
            run,
            state: "waiting".to_owned(),
            waiting_for: Some(format!("{workers_expected} workers")),
            generation: 0,
            world_size: 0,
            workers_expected,
            workers: Vec::new(),
            epoch: 0,
            epochs,
            step: 0,
            steps_per_epoch: 0,
            train_loss: None,
            images_per_second: 0.0,
            best: None,
            last_epoch: None,
            stop_reason: None,
            run_directory: String::new(),
            coordinator_url: String::new(),
        }
    }
}
