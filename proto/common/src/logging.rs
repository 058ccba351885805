//! The log of a process, set up the same way in both programs: lines of text or of JSON, filtered
//! by `RUST_LOG`, each JSON line with the trace id of the run once that is known.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::trace::TraceId;

/// Starts the log of this process. Without a `RUST_LOG` that can be read, text shows `text_level`
/// and above, and JSON, which a collector keeps, `info`.
///
/// # Errors
/// The log was started before.
pub fn init<W>(json: bool, text_level: &str, writer: W) -> Result<LogTrace, TryInitError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let rust_log = std::env::var_os("RUST_LOG").unwrap_or_default();
    let fallback = if json { "info" } else { text_level };
    let (filter, complaint) = filter(&rust_log.to_string_lossy(), fallback);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let trace = LogTrace::default();
    if json {
        builder
            .json()
            .flatten_event(true)
            .map_event_format(|json| trace.stamp(json))
            .finish()
            .try_init()?;
    } else {
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder
            .with_target(false)
            .with_ansi(colours)
            .finish()
            .try_init()?;
    }
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    Ok(trace)
}

/// The filter, and what is wrong with `rust_log` if it cannot be used.
fn filter(rust_log: &str, fallback: &str) -> (EnvFilter, Option<String>) {
    if rust_log.trim().is_empty() {
        return (EnvFilter::new(fallback), None);
    }
    match EnvFilter::try_new(rust_log) {
        Ok(filter) => (filter, None),
        Err(error) => (
            EnvFilter::new(fallback),
            Some(format!("ignoring RUST_LOG={rust_log:?}: {error}")),
        ),
    }
}

/// The trace that a process's log lines belong to, which is known only after logging began.
#[derive(Debug, Clone, Default)]
pub struct LogTrace(Arc<OnceLock<TraceId>>);

impl LogTrace {
    /// Adds this id to every later line. A process has one run, so only the first call counts.
    pub fn set(&self, trace: TraceId) {
        let _ = self.0.set(trace);
    }

    fn stamp<F>(&self, json: F) -> Stamped<F> {
        Stamped {
            json,
            trace: self.clone(),
        }
    }
}

/// A format of JSON objects, each with `trace_id`.
struct Stamped<F> {
    json: F,
    trace: LogTrace,
}

impl<S, N, F> FormatEvent<S, N> for Stamped<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = self.trace.0.get() else {
            return self.json.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.json
            .format_event(context, Writer::new(&mut line), event)?;
        let fields = line.strip_prefix('{').ok_or(fmt::Error)?;
        write!(writer, "{{\"trace_id\":\"{trace}\",{fields}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_carry_the_trace_once_it_is_known() {
        let (read, write) = std::io::pipe().unwrap();
        let trace = LogTrace::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Mutex::new(write))
            .json()
            .map_event_format(|json| trace.stamp(json))
            .finish();
        let id = TraceId::of_run("a");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            trace.set(id);
            tracing::info!("after {{");
        });
        let text = std::io::read_to_string(read).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["trace_id"], serde_json::Value::Null);
        assert_eq!(lines[1]["trace_id"], id.to_string());
        assert_eq!(lines[1]["fields"]["message"], "after {");
    }

    #[test]
    fn rust_log_decides_and_nonsense_is_named() {
        assert_eq!(filter("", "warn").0.to_string(), "warn");
        assert_eq!(filter(" ", "warn").0.to_string(), "warn");
        let (asked, complaint) = filter("coordinator=debug", "warn");
        assert_eq!(
            (asked.to_string().as_str(), complaint),
            ("coordinator=debug", None)
        );
        let (fallback, complaint) = filter("coordinator=loud", "warn");
        assert_eq!(fallback.to_string(), "warn");
        assert!(
            complaint
                .unwrap()
                .starts_with("ignoring RUST_LOG=\"coordinator=loud\"")
        );
    }
}
