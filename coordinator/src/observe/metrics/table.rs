//! Every metric once: name, kind, help, labels. Dashboards and alerts are checked against this
//! table. Names follow Prometheus's conventions (<https://prometheus.io/docs/practices/naming/>):
//! base units, plural unit suffix, `_total` on counters, ratios from 0 to 1, `_info` gauges
//! that are always 1. Label values are bounded: no step, no text of an error.

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{
    CounterVec as Counter, GaugeVec as Gauge, HistogramOpts, HistogramVec as Histogram, Opts,
    Registry,
};

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

impl From<&MetricSpec> for Opts {
    fn from(spec: &MetricSpec) -> Self {
        Self::new(spec.full_name(), spec.help)
    }
}

impl From<&MetricSpec> for HistogramOpts {
    fn from(spec: &MetricSpec) -> Self {
        Self::from(Opts::from(spec)).buckets(duration_buckets())
    }
}

macro_rules! table {
    ($($name:ident: $kind:ident [$($label:literal),*] $help:literal;)+) => {
        $(#[allow(non_upper_case_globals, reason = "it is the name of the metric")]
        const $name: MetricSpec = MetricSpec {
            name: stringify!($name),
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
        };)+

        /// Every metric of the coordinator.
        pub const TABLE: &[MetricSpec] = &[$($name),+];

        /// The series of every metric, under the name of the metric.
        #[derive(Debug)]
        pub(super) struct Series { $(pub(super) $name: $kind,)+ }

        impl Series {
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self { $($name: register(registry, &$name, $kind::new)?,)+ })
            }
        }
    };
}

/// Makes a metric. One without labels has its only series from the start.
fn register<B: MetricVecBuilder + 'static, O: for<'a> From<&'a MetricSpec>>(
    registry: &Registry,
    spec: &MetricSpec,
    new: fn(O, &[&str]) -> prometheus::Result<MetricVec<B>>,
) -> prometheus::Result<MetricVec<B>> {
    let metric = new(spec.into(), spec.labels)?;
    if spec.labels.is_empty() {
        metric.with_label_values::<&str>(&[]);
    }
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

table! {
    build_info: Gauge ["version"]
        "Which coordinator this is; always 1.";
    run_info: Gauge ["run", "model", "dataset"]
        "Which run this is; always 1.";
    workers_lost_total: Counter []
        "Workers that were lost: died, hung, or cut off.";
    recovery_duration_seconds: Histogram ["cause"]
        "From the loss of a worker, or the break of a group, to a group that works again.";
    worker_info: Gauge ["rank", "host", "device", "gpu_uuid"]
        "The holder of a rank of the current generation; always 1. gpu_uuid is as DCGM's, empty on a CPU.";
    worker_last_heartbeat_timestamp_seconds: Gauge ["rank"]
        "Unix time of the last heartbeat of a rank's holder; NaN before the first group.";
    straggler_ratio: Gauge ["rank"]
        "The rank's median busy time of a step over the group's median; above 1.2 others wait.";
    checkpoint_last_success_timestamp_seconds: Gauge []
        "When the last checkpoint became durable, in Unix time; 0 before the first.";
    checkpoint_bytes: Gauge []
        "Size of the last checkpoint.";
    checkpoint_lag_steps: Gauge []
        "Steps since the last durable checkpoint: those to repeat if all processes died now.";
    run_state: Gauge ["state"]
        "1 for the state that the run is in, 0 for the others.";
    stop_reason_info: Gauge ["reason"]
        "1 for the reason why the run stopped, 0 for the others and while it runs.";
    epoch: Gauge []
        "The epoch under way or last done, from 1; 0 before the first.";
    epochs_target: Gauge []
        "The most epochs that the run may take.";
    epoch_steps: Gauge []
        "Steps of the epoch under way that all ranks have made.";
    epoch_steps_target: Gauge []
        "Steps of an epoch; 0 before the first.";
    steps_total: Counter []
        "Optimizer updates done.";
    samples_total: Counter ["split"]
        "Images that passed through the network, over all ranks.";
    last_step_timestamp_seconds: Gauge []
        "Unix time of the last finished step; 0 before the first.";
    loss: Gauge ["split"]
        "Mean cross entropy: train over the epoch so far, validation of the last epoch; NaN before.";
    accuracy_ratio: Gauge ["split"]
        "Top-1 accuracy, 0 to 1; NaN before the first validation.";
    best_validation_loss: Gauge []
        "Validation loss of the best epoch by the early-stopping rule; NaN before the first. With min-delta, a later loss may be lower.";
    best_epoch: Gauge []
        "The best epoch by the early-stopping rule; 0 before the first.";
    early_stop_wait_epochs: Gauge []
        "Epochs since the best epoch.";
    early_stop_patience_epochs: Gauge []
        "Epochs without improvement after which the run stops.";
    learning_rate: Gauge ["group"]
        "Learning rate of a parameter group in this epoch.";
    step_duration_seconds: Histogram ["rank"]
        "Wall time of a rank's training step.";
    phase_duration_seconds: Histogram ["rank", "phase"]
        "Wall time of a rank's phases within a step, and of its part of a validation.";
    workers: Gauge ["state"]
        "Workers by state.";
    generation: Gauge []
        "Number of the agreed membership; it rises when workers come or go.";
    data_sent_bytes_total: Counter []
        "Bytes of images that were sent to workers with --data coordinator.";
    data_bandwidth_limit_bytes_per_second: Gauge []
        "Limit of --data-bandwidth, over all workers.";
    decode_errors_total: Counter []
        "Images that could not be decoded and were skipped.";
    grpc_server_handled_total: Counter ["grpc_type", "grpc_service", "grpc_method", "grpc_code"]
        "RPCs whose response began, by the status code that it began with.";
    grpc_server_handling_seconds: Histogram ["grpc_type", "grpc_service", "grpc_method"]
        "From the start of an RPC to the start of its response: all of an upload, the registration of a session.";
    driver_queue_length: Gauge []
        "Messages in the queue of the driver, the task that owns the run.";
    recorder_queue_length: Gauge []
        "Records and files that wait to be written to the run directory.";
    driver_events_total: Counter []
        "Messages that the driver has processed.";
    driver_busy_seconds_total: Counter []
        "Seconds that the driver spent processing messages.";
}

/// 1 ms to 16.384 s, doubling: steps take 5 ms on a GPU and seconds on a CPU.
fn duration_buckets() -> Vec<f64> {
    (0..15).map(|power| 0.001 * f64::from(1 << power)).collect()
}
