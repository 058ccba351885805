//! `coordinator health`: one request to `/healthz`, one line, exit code 0 or 1. Made for checks
//! of containers, whose image has no other HTTP client.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::DEFAULT_METRICS_LISTEN;

/// How long the coordinator may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What stands after `coordinator health` on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthArgs {
    /// Where the coordinator serves its metrics
    #[arg(long, default_value_t = default_url())]
    pub url: String,
}

fn default_url() -> String {
    format!("http://{}", SocketAddr::from(DEFAULT_METRICS_LISTEN))
}

impl HealthArgs {
    /// Asks, and says what came of it.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        match self.ask() {
            Ok(()) => {
                println!("{} is healthy", self.url);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{} is not healthy: {error}", self.url);
                ExitCode::FAILURE
            }
        }
    }

    fn ask(&self) -> Result<(), ureq::Error> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // It is on this machine.
            .proxy(None)
            .build()
            .new_agent();
        let url = format!("{}/healthz", self.url.trim_end_matches('/'));
        agent.get(url).call().map(drop)
    }
}
