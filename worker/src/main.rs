//! `worker`: flags, logs, agent, exit code.

use clap::Parser;
use worker::agent::{self, Ended};
use worker::cli::{Cli, LogFormat};
use worker::error::AgentError;

fn main() {
    let cli = Cli::parse();
    let started = c10d::process::Started::now();
    // First, while there is one thread.
    let interface = agent::interface(cli.advertise.as_deref());
    if let Err(error) = c10d::process::prepare(cli.gpu.as_deref(), interface.as_deref()) {
        eprintln!("error: {error}");
        std::process::exit(2);
    }
    kernels::keep_freed_memory();
    let json = cli.log_format == LogFormat::Json;
    let logs = match common::logging::init(json, "info", std::io::stderr) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("cannot start the log: {error}");
            std::process::exit(1);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            std::process::exit(1);
        }
    };
    let code = match runtime.block_on(agent::run(&cli, &logs)) {
        Ok(Ended::ByCoordinator) if cli.stay => {
            tracing::info!("waiting for the next run");
            let error = started.restart();
            tracing::error!(%error, "cannot start this program again");
            1
        }
        Ok(_) => 0,
        Err(error) => {
            tracing::error!("{}", common::text::printable(&error.to_string()));
            // `--help` lists them. A code that the coordinator uses too means the same there.
            match error {
                AgentError::Usage(_) => 2,
                AgentError::Unreachable { .. } => 12,
                _ => 1,
            }
        }
    };
    c10d::process::exit(code);
}
