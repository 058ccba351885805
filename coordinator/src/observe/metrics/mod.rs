//! The numbers that Prometheus reads. Every metric stands in `table`, and every series exists from
//! the start, so that no alert has to wait for a first value. The registry is passed in: there is
//! no global one. Nothing here decides anything.

mod apply;
mod labels;
mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use coordinator_core::early_stopping::Standing;
use coordinator_core::event::OutageCause;
use coordinator_core::schedule::PARAMETER_GROUPS;
use prometheus::{CounterVec, GaugeVec, HistogramVec, Registry};
use tonic::Code;

use crate::net::clock::unix_seconds;
use labels::code_label;
pub use labels::{Method, RunState, STOP_LABELS, WorkerState, stop_label};
use table::Series;
pub use table::{GRPC_PREFIX, Kind, MetricSpec, PREFIX, TABLE};

/// Values of the label `split`; a phase is called `validation` as well.
const TRAIN: &str = "train";
const VALIDATION: &str = "validation";

/// What the constant series say about a run.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Name of the run, the last part of its directory.
    pub run: String,
    /// `demo` or the data folder.
    pub dataset: String,
    /// Workers that the run is meant to have; there are series for the ranks below.
    pub workers: usize,
    /// The most epochs.
    pub epochs: u32,
    /// Epochs without improvement before the run stops.
    pub patience: u32,
}

/// All series; cheap to clone, safe to use from anywhere.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    series: Series,
    /// Ranks that have series.
    ranks: AtomicUsize,
}

fn set(gauge: &GaugeVec, labels: &[&str], value: f64) {
    gauge.with_label_values(labels).set(value);
}

fn add(counter: &CounterVec, labels: &[&str], value: f64) {
    counter.with_label_values(labels).inc_by(value);
}

fn observe(histogram: &HistogramVec, labels: &[&str], value: f64) {
    histogram.with_label_values(labels).observe(value);
}

impl Metrics {
    /// Registers every series, with its first value.
    ///
    /// # Errors
    /// The registry holds one of the names already.
    pub fn new(registry: &Registry, facts: &RunFacts) -> Result<Self, prometheus::Error> {
        let metrics = Self(Arc::new(Inner {
            series: Series::register(registry)?,
            ranks: AtomicUsize::new(0),
        }));
        metrics.initialise(facts);
        Ok(metrics)
    }

    fn series(&self) -> &Series {
        &self.0.series
    }

    /// Gives each labelled series its first value: 0, or NaN for what has no value yet.
    fn initialise(&self, facts: &RunFacts) {
        let series = self.series();
        set(&series.build_info, &[env!("CARGO_PKG_VERSION")], 1.0);
        let run = [&facts.run, "resnet18", &facts.dataset];
        set(&series.run_info, &run, 1.0);
        set(&series.epochs_target, &[], facts.epochs.into());
        let patience = facts.patience.into();
        set(&series.early_stop_patience_epochs, &[], patience);
        self.set_run_state(RunState::Waiting);
        for label in STOP_LABELS {
            set(&series.stop_reason_info, &[label], 0.0);
        }
        for split in [TRAIN, VALIDATION] {
            add(&series.samples_total, &[split], 0.0);
            set(&series.loss, &[split], f64::NAN);
        }
        set(&series.accuracy_ratio, &[VALIDATION], f64::NAN);
        set(&series.best_validation_loss, &[], f64::NAN);
        for group in PARAMETER_GROUPS {
            set(&series.learning_rate, &[group], 0.0);
        }
        for cause in OutageCause::ALL {
            let recoveries = &series.recovery_duration_seconds;
            recoveries.with_label_values(&[cause.label()]);
        }
        for state in WorkerState::ALL {
            self.set_workers(*state, 0);
        }
        self.set_workers(WorkerState::Expected, facts.workers);
        self.resize(facts.workers);
        for rank in 0..facts.workers {
            self.heard(rank, f64::NAN);
        }
        for method in Method::ALL {
            let [kind, service, name] = names(*method);
            let handling = &series.grpc_server_handling_seconds;
            handling.with_label_values(&[kind, service, name]);
            let labels = [kind, service, name, &code_label(Code::Ok)];
            add(&series.grpc_server_handled_total, &labels, 0.0);
        }
    }

    /// Moves the run to `state`: its series is 1, all others 0.
    pub fn set_run_state(&self, state: RunState) {
        for other in RunState::ALL {
            let value = f64::from(u8::from(*other == state));
            set(&self.series().run_state, &[other.label()], value);
        }
    }

    /// Records why the run stopped, by one of [`STOP_LABELS`].
    pub fn set_stop_reason(&self, label: &str) {
        set(&self.series().stop_reason_info, &[label], 1.0);
    }

    /// Sets how many workers are in a state.
    pub fn set_workers(&self, state: WorkerState, count: usize) {
        set(&self.series().workers, &[state.label()], count as f64);
    }

    /// Records that the holder of a rank was heard of.
    pub fn heard(&self, rank: usize, unix_seconds: f64) {
        let heartbeat = &self.series().worker_last_heartbeat_timestamp_seconds;
        set(heartbeat, &[&rank.to_string()], unix_seconds);
    }

    /// Records that a checkpoint of `bytes` became durable just now, `lag` steps behind the run.
    pub fn checkpoint(&self, bytes: u64, lag: u64) {
        let series = self.series();
        let at = &series.checkpoint_last_success_timestamp_seconds;
        set(at, &[], unix_seconds());
        set(&series.checkpoint_bytes, &[], bytes as f64);
        set(&series.checkpoint_lag_steps, &[], lag as f64);
    }

    /// Counts bytes of images given to workers.
    pub fn data_sent(&self, bytes: u64) {
        add(&self.series().data_sent_bytes_total, &[], bytes as f64);
    }

    /// Sets how many bytes of images may be given out each second.
    pub fn set_data_bandwidth(&self, bytes_per_second: u64) {
        let limit = &self.series().data_bandwidth_limit_bytes_per_second;
        set(limit, &[], bytes_per_second as f64);
    }

    /// Counts an RPC whose response began after so many seconds.
    pub fn answered(&self, method: Method, code: Code, seconds: f64) {
        let [kind, service, name] = names(method);
        let labels = [kind, service, name, &code_label(code)];
        add(&self.series().grpc_server_handled_total, &labels, 1.0);
        let handling = &self.series().grpc_server_handling_seconds;
        observe(handling, &labels[..3], seconds);
    }

    /// Counts messages that took the driver so many seconds, and those in the queue behind them.
    pub fn drove(&self, messages: u64, seconds: f64, waiting: usize) {
        let series = self.series();
        add(&series.driver_events_total, &[], messages as f64);
        add(&series.driver_busy_seconds_total, &[], seconds);
        set(&series.driver_queue_length, &[], waiting as f64);
    }

    /// Shows where early stopping stands.
    pub fn stopping(&self, stopping: Standing) {
        let series = self.series();
        let best = stopping.best;
        set(
            &series.best_epoch,
            &[],
            best.map_or(0.0, |best| best.epoch.into()),
        );
        let loss = best.map_or(f64::NAN, |best| best.loss);
        set(&series.best_validation_loss, &[], loss);
        set(&series.early_stop_wait_epochs, &[], stopping.wait.into());
    }

    /// Shows how many jobs the recorder has not done.
    pub fn recording(&self, waiting: usize) {
        set(&self.series().recorder_queue_length, &[], waiting as f64);
    }
}

/// The labels of a method, but for the code.
fn names(method: Method) -> [&'static str; 3] {
    [method.kind(), method.service(), method.label()]
}

#[cfg(test)]
mod tests;
