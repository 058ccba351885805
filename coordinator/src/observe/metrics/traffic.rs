//! What the coordinator itself has to do: calls at its edge, and the work of the task that owns
//! the run.

use prometheus::{Counter, Gauge, HistogramVec, IntCounter, IntCounterVec};
use tonic::Code;

use super::{Method, SaveState, opts, table};

/// Handles on the series; clones share them.
#[derive(Debug, Clone)]
pub struct Traffic {
    requests: IntCounterVec,
    durations: HistogramVec,
    queue: Gauge,
    events: IntCounter,
    busy: Counter,
}

impl Traffic {
    pub(super) fn new(keep: &SaveState<'_>) -> Result<Self, prometheus::Error> {
        let new = Self {
            requests: keep.register(IntCounterVec::new(
                opts(&table::GRPC_REQUESTS),
                table::GRPC_REQUESTS.labels,
            )?)?,
            durations: keep.histograms(&table::GRPC_DURATION)?,
            queue: keep.gauge(&table::DRIVER_QUEUE)?,
            events: keep.register(IntCounter::with_opts(opts(&table::DRIVER_EVENTS))?)?,
            busy: keep.register(Counter::with_opts(opts(&table::DRIVER_BUSY))?)?,
        };
        for method in Method::ALL {
            new.durations.with_label_values(&[method.label()]);
            new.requests
                .with_label_values(&[method.label(), &format!("{:?}", Code::Ok)]);
        }
        Ok(new)
    }

    /// Counts a call whose answer began after so many seconds.
    pub fn answered(&self, method: Method, code: Code, seconds: f64) {
        self.requests
            .with_label_values(&[method.label(), &format!("{code:?}")])
            .inc();
        self.durations
            .with_label_values(&[method.label()])
            .observe(seconds);
    }

    /// Counts a message that took the driver so many seconds, and how many wait behind it.
    pub fn drove(&self, seconds: f64, waiting: usize) {
        self.events.inc();
        self.busy.inc_by(seconds);
        self.queue.set(waiting as f64);
    }
}
