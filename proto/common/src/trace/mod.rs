//! One OpenTelemetry trace for each run, named after the run, so that coordinator and workers
//! build the same one without telling each other more than which run it is. It owns the ids and the
//! way to the collector; what is worth a span its callers decide.
//!
//! ```text
//! run ─┬─▶ epoch ──▶ rank (one of each worker)
//!      └─▶ recovery
//! ```

mod export;
mod ids;
mod span;

pub use export::{Exporter, Spans, is_endpoint};
pub use ids::{SpanId, TraceId};
pub use span::{Span, Value};
