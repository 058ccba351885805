//! Logs of the worker: to stderr, which a launcher collects into the worker's file.

use common::logging::LogTrace;
use tracing_subscriber::EnvFilter;

/// Starts logging as `RUST_LOG` asks, from `info` up without it. JSON lines carry the trace that
/// is set on what comes back.
pub fn init(json: bool) -> LogTrace {
    let trace = LogTrace::default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if json {
        builder
            .json()
            .map_event_format(|json| trace.stamp(json))
            .init();
    } else {
        builder.init();
    }
    trace
}
