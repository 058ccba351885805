//! One OpenTelemetry trace for each run, named after the run, so that coordinator and workers
//! build the same one without telling each other more than which run it is. It owns the ids, the
//! way to the collector, and the id in log lines; what is worth a span its callers decide.
//!
//! ```text
//! run ─┬─▶ epoch ──▶ rank (one of each worker)
//!      └─▶ recovery
//! ```

mod export;
mod ids;
mod log;
mod span;

pub use export::{Exporter, Spans, is_endpoint};
pub use ids::{SpanId, TraceId};
pub use log::{LogTrace, Stamped};
pub use span::{Span, Value};
