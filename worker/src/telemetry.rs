//! Logs of the worker: to stderr, which a launcher collects into the worker's file.

use tracing_subscriber::EnvFilter;

/// Starts logging as `RUST_LOG` asks, from `info` up without it.
pub fn init(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}
