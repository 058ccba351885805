//! The trace id in each line of a JSON log, whichever thread writes it, from when the run is known.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::trace::TraceId;

/// The trace that a process's log lines belong to, which is known only after logging began.
#[derive(Debug, Clone, Default)]
pub struct LogTrace(Arc<OnceLock<TraceId>>);

impl LogTrace {
    /// From now on lines carry this id. A process has one run, so only the first counts.
    pub fn set(&self, trace: TraceId) {
        let _ = self.0.set(trace);
    }

    /// A format that writes each event as `json` does, with the trace.
    #[must_use]
    pub fn stamp<F>(&self, json: F) -> Stamped<F> {
        Stamped {
            json,
            trace: self.clone(),
        }
    }
}

/// A format of JSON objects, each with `trace_id`.
#[derive(Debug)]
pub struct Stamped<F> {
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
}
