//! The load of the coordinator itself: the RPCs that it handles, and the work of the driver.

use prometheus::{Counter, Gauge, HistogramVec, IntCounter, IntCounterVec};
use tonic::Code;

use super::labels::code_label;
use super::{Method, Register, opts, table};

/// Handles on the series; clones share them.
#[derive(Debug, Clone)]
pub struct Traffic {
    handled: IntCounterVec,
    handling: HistogramVec,
    queue: Gauge,
    recorder: Gauge,
    events: IntCounter,
    busy: Counter,
}

impl Traffic {
    pub(super) fn new(register: &Register<'_>) -> Result<Self, prometheus::Error> {
        let new = Self {
            handled: register.register(IntCounterVec::new(
                opts(&table::GRPC_HANDLED),
                table::GRPC_HANDLED.labels,
            )?)?,
            handling: register.histograms(&table::GRPC_HANDLING)?,
            queue: register.gauge(&table::DRIVER_QUEUE)?,
            recorder: register.gauge(&table::RECORDER_QUEUE)?,
            events: register.register(IntCounter::with_opts(opts(&table::DRIVER_EVENTS))?)?,
            busy: register.register(Counter::with_opts(opts(&table::DRIVER_BUSY))?)?,
        };
        for method in Method::ALL {
            let [kind, service, name] = names(*method);
            new.handling.with_label_values(&[kind, service, name]);
            let code = code_label(Code::Ok);
            new.handled.with_label_values(&[kind, service, name, code]);
        }
        Ok(new)
    }

    /// Counts an RPC whose response began after so many seconds.
    pub fn answered(&self, method: Method, code: Code, seconds: f64) {
        let [kind, service, name] = names(method);
        let labels = [kind, service, name, code_label(code)];
        self.handled.with_label_values(&labels).inc();
        self.handling
            .with_label_values(&labels[..3])
            .observe(seconds);
    }

    /// Counts a message that took the driver so many seconds, and those in the queue behind it.
    pub fn drove(&self, seconds: f64, waiting: usize) {
        self.events.inc();
        self.busy.inc_by(seconds);
        self.queue.set(waiting as f64);
    }

    /// Shows how many jobs the recorder has not done.
    pub fn recording(&self, waiting: usize) {
        self.recorder.set(waiting as f64);
    }
}

/// The labels of a method, but for the code.
fn names(method: Method) -> [&'static str; 3] {
    [method.kind(), method.service(), method.label()]
}
