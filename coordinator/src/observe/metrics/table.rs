//! Every metric once: name, kind, help, labels. Dashboards and alerts are checked against this
//! table. Names follow Prometheus's conventions (<https://prometheus.io/docs/practices/naming/>):
//! base units, plural unit suffix, `_total` on counters, ratios from 0 to 1, `_info` gauges
//! that are always 1. Label values are bounded: no step, no text of an error.

/// What the names of the project's own metrics begin with, before an underscore.
pub const PREFIX: &str = "finetune";
/// What the names of gRPC's metrics begin with: they are those of gRPC's own instrumentation, so
/// that its dashboards fit.
pub const GRPC_PREFIX: &str = "grpc_server";

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    /// Name, without the prefix of the project's own metrics.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// What it says, as scrapers show it.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

impl MetricSpec {
    /// The name of the exported series.
    #[must_use]
    pub fn full_name(&self) -> String {
        match self.name.starts_with(GRPC_PREFIX) {
            true => self.name.to_owned(),
            false => format!("{PREFIX}_{}", self.name),
        }
    }
}

macro_rules! table {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $constant: MetricSpec = MetricSpec {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
        };)+
        /// Every metric of the coordinator.
        pub const TABLE: &[MetricSpec] = &[$($constant),+];
    };
}

table! {
    BUILD_INFO = Gauge "build_info" ["version"]
        "Which coordinator this is; always 1.";
    RUN_INFO = Gauge "run_info" ["run", "model", "dataset"]
        "Which run this is; always 1.";
    WORKERS_LOST = Counter "workers_lost_total" []
        "Workers that were lost: died, hung, or cut off.";
    RECOVERY_DURATION = Histogram "recovery_duration_seconds" ["cause"]
        "From the loss of a worker, or the break of a group, to a group that works again.";
    WORKER_INFO = Gauge "worker_info" ["rank", "host", "device", "gpu_uuid"]
        "The holder of a rank of the current generation; always 1. gpu_uuid is as DCGM's, empty on a CPU.";
    HEARTBEAT = Gauge "worker_last_heartbeat_timestamp_seconds" ["rank"]
        "Unix time of the last heartbeat of a rank's holder; NaN before the first group.";
    STRAGGLER_RATIO = Gauge "straggler_ratio" ["rank"]
        "The rank's median busy time of a step over the group's median; above 1.2 others wait.";
    CHECKPOINT_TIME = Gauge "checkpoint_last_success_timestamp_seconds" []
        "When the last checkpoint became durable, in Unix time; 0 before the first.";
    CHECKPOINT_BYTES = Gauge "checkpoint_bytes" []
        "Size of the last checkpoint.";
    CHECKPOINT_LAG = Gauge "checkpoint_lag_steps" []
        "Steps since the last durable checkpoint: those to repeat if all processes died now.";
    RUN_STATE = Gauge "run_state" ["state"]
        "1 for the state that the run is in, 0 for the others.";
    STOP_REASON = Gauge "stop_reason_info" ["reason"]
        "1 for the reason why the run stopped, 0 for the others and while it runs.";
    EPOCH = Gauge "epoch" []
        "The epoch under way or last done, from 1; 0 before the first.";
    EPOCHS_TARGET = Gauge "epochs_target" []
        "The most epochs that the run may take.";
    EPOCH_STEPS = Gauge "epoch_steps" []
        "Steps of the epoch under way that all ranks have made.";
    EPOCH_STEPS_TARGET = Gauge "epoch_steps_target" []
        "Steps of an epoch; 0 before the first.";
    STEPS = Counter "steps_total" []
        "Optimizer updates done.";
    SAMPLES = Counter "samples_total" ["split"]
        "Images that passed through the network, over all ranks.";
    LAST_STEP = Gauge "last_step_timestamp_seconds" []
        "Unix time of the last finished step; 0 before the first.";
    LOSS = Gauge "loss" ["split"]
        "Mean cross entropy: train over the epoch so far, validation of the last epoch; NaN before.";
    ACCURACY = Gauge "accuracy_ratio" ["split"]
        "Top-1 accuracy, 0 to 1; NaN before the first validation.";
    BEST_LOSS = Gauge "best_validation_loss" []
        "Validation loss of the best epoch by the early-stopping rule; NaN before the first. With min-delta, a later loss may be lower.";
    BEST_EPOCH = Gauge "best_epoch" []
        "The best epoch by the early-stopping rule; 0 before the first.";
    WAIT = Gauge "early_stop_wait_epochs" []
        "Epochs since the best epoch.";
    PATIENCE = Gauge "early_stop_patience_epochs" []
        "Epochs without improvement after which the run stops.";
    LEARNING_RATE = Gauge "learning_rate" ["group"]
        "Learning rate of a parameter group in this epoch.";
    IMAGES_PER_SECOND = Gauge "images_per_second" []
        "Training images per second over all ranks.";
    STEP_DURATION = Histogram "step_duration_seconds" ["rank"]
        "Wall time of a rank's training step.";
    PHASE_DURATION = Histogram "phase_duration_seconds" ["rank", "phase"]
        "Wall time of a rank's phases within a step, and of its part of a validation.";
    WORKERS = Gauge "workers" ["state"]
        "Workers by state.";
    GENERATION = Gauge "generation" []
        "Number of the agreed membership; it rises when workers come or go.";
    DATA_SENT = Counter "data_sent_bytes_total" []
        "Bytes of images that were sent to workers with --data coordinator.";
    DATA_BANDWIDTH = Gauge "data_bandwidth_limit_bytes_per_second" []
        "Limit of --data-bandwidth, over all workers.";
    DECODE_ERRORS = Counter "decode_errors_total" []
        "Images that could not be decoded and were skipped.";
    GRPC_HANDLED = Counter "grpc_server_handled_total"
        ["grpc_type", "grpc_service", "grpc_method", "grpc_code"]
        "RPCs whose response began, by the status code that it began with.";
    GRPC_HANDLING = Histogram "grpc_server_handling_seconds"
        ["grpc_type", "grpc_service", "grpc_method"]
        "From the start of an RPC to the start of its response: all of an upload, the registration of a session.";
    DRIVER_QUEUE = Gauge "driver_queue_length" []
        "Messages in the queue of the driver, the task that owns the run.";
    RECORDER_QUEUE = Gauge "recorder_queue_length" []
        "Records and files that wait to be written to the run directory.";
    DRIVER_EVENTS = Counter "driver_events_total" []
        "Messages that the driver has processed.";
    DRIVER_BUSY = Counter "driver_busy_seconds_total" []
        "Seconds that the driver spent processing messages.";
}

/// 1 ms to 16.384 s, doubling: steps take 5 ms on a GPU and seconds on a CPU.
pub(super) fn duration_buckets() -> Vec<f64> {
    (0..15).map(|power| 0.001 * f64::from(1 << power)).collect()
}
