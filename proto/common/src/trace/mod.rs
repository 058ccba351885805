//! One OpenTelemetry trace for each run. All ids derive from the id of the run, so coordinator and
//! workers build the same trace without exchanging more than that id. Owns the ids and the export;
//! its callers decide what becomes a span.
//!
//! ```text
//! run ─┬─▶ epoch ──▶ rank (one of each worker)
//!      └─▶ recovery
//! ```

mod ids;
mod spans;

pub use ids::TraceId;
pub use opentelemetry::trace::SpanId;
pub use spans::{Span, Spans, is_endpoint};
