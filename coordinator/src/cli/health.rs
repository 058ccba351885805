//! `coordinator health`: one request to `/healthz` or `/readyz`, one line, exit code 0 or 1. For the
//! probes of containers, whose image has no HTTP client.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::DEFAULT_METRICS_LISTEN;

/// Time for the whole request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `coordinator health`.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthArgs {
    /// Where the coordinator serves its metrics
    #[arg(long, default_value_t = default_url())]
    pub url: String,

    /// Whether it trains, or could train at once, instead of whether it answers
    #[arg(long)]
    pub ready: bool,
}

fn default_url() -> String {
    format!("http://{}", SocketAddr::from(DEFAULT_METRICS_LISTEN))
}

impl HealthArgs {
    /// Sends the request and prints the result.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        let (_, state) = self.asked();
        match self.check() {
            Ok(()) => {
                println!("{} is {state}", self.url);
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{} is not {state}: {error}", self.url);
                ExitCode::FAILURE
            }
        }
    }

    /// The path of the request, and what status 200 says.
    fn asked(&self) -> (&'static str, &'static str) {
        match self.ready {
            true => ("readyz", "ready"),
            false => ("healthz", "healthy"),
        }
    }

    fn check(&self) -> Result<(), ureq::Error> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // The coordinator is on this machine.
            .proxy(None)
            .build()
            .new_agent();
        let (path, _) = self.asked();
        let url = format!("{}/{path}", self.url.trim_end_matches('/'));
        agent.get(url).call().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn answer(ready: bool, reply: &'static str) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let good = HealthArgs { url, ready }.check().is_ok();
        let path = if ready { "/readyz" } else { "/healthz" };
        let request = server.join().unwrap();
        assert!(
            request.starts_with(&format!("GET {path} HTTP/1.1")),
            "{request}"
        );
        good
    }

    #[test]
    fn only_status_200_is_healthy_or_ready() {
        for ready in [false, true] {
            assert!(answer(
                ready,
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"
            ));
            assert!(!answer(
                ready,
                "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
            ));
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        assert!(HealthArgs { url, ready: false }.check().is_err());
    }
}
