//! Turns structured logs on: to stderr, as text or JSON. What people follow is `progress`;
//! logs are for looking into things, so text shows warnings only unless RUST_LOG asks for
//! more, while JSON, which a collector keeps, includes `info`.

use common::logging::LogTrace;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// Installs the process's logging through `writer`, usually `Progress::log_writer`. JSON lines
/// carry the trace that is set on what comes back.
///
/// # Errors
/// Logging was installed before.
pub fn init<W>(format: LogFormat, writer: W) -> Result<LogTrace, TryInitError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, complaint) = filter(std::env::var("RUST_LOG").ok().as_deref(), format);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let trace = LogTrace::default();
    match format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(colours())
            .finish()
            .try_init()?,
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .map_event_format(|json| trace.stamp(json))
            .finish()
            .try_init()?,
    }
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    Ok(trace)
}

/// The filter, and what was wrong with RUST_LOG if it could not be used.
fn filter(rust_log: Option<&str>, format: LogFormat) -> (EnvFilter, Option<String>) {
    let fallback = match format {
        LogFormat::Text => "warn",
        LogFormat::Json => "info",
    };
    match rust_log
        .filter(|text| !text.trim().is_empty())
        .map(EnvFilter::try_new)
    {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (
            EnvFilter::new(fallback),
            Some(format!("ignoring RUST_LOG: {error}")),
        ),
        None => (EnvFilter::new(fallback), None),
    }
}

fn colours() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_decides_and_nonsense_is_named() {
        let text = |rust_log| filter(rust_log, LogFormat::Text);
        assert_eq!(text(None).0.to_string(), "warn");
        assert_eq!(text(Some("")).0.to_string(), "warn");
        assert_eq!(
            text(Some("coordinator=debug")).0.to_string(),
            "coordinator=debug"
        );
        assert_eq!(filter(None, LogFormat::Json).0.to_string(), "info");
        let (fallback, complaint) = text(Some("coordinator=loud"));
        assert_eq!(fallback.to_string(), "warn");
        assert!(complaint.unwrap().starts_with("ignoring RUST_LOG"));
    }
}
