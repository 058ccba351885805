//! The coordinator that the simulated workers register with, and what it costs.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

/// The unit of processor time in `/proc` (USER_HZ), on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A coordinator process, killed when this is dropped.
pub(crate) struct Coordinator {
    child: Child,
    log: PathBuf,
}

impl Coordinator {
    /// Starts one in `folder` that waits for so many workers.
    pub(crate) fn start(
        folder: &Path,
        workers: usize,
        global_batch: usize,
    ) -> anyhow::Result<Self> {
        let log = folder.join("log");
        let child = integration_tests::coordinator()
            .args(["--no-spawn", "--data=demo", "--device=cpu"])
            .args(["--epochs=1000", "--patience=999", "--stall-timeout=600"])
            .args(["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"])
            .arg(format!("--workers={workers}"))
            .arg(format!("--global-batch={global_batch}"))
            .arg(format!("--run-dir={}", folder.join("run").display()))
            .stdout(std::fs::File::create(&log)?)
            .stderr(Stdio::inherit())
            .env("RUST_LOG", "warn")
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Waits for the addresses of its gRPC server and of its HTTP server.
    pub(crate) async fn addresses(&self) -> anyhow::Result<(String, String)> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let grpc = self.printed_after("--coordinator http://");
            let http = self.printed_after("metrics: http://");
            if let (Some(grpc), Some(http)) = (grpc, http) {
                return Ok((grpc, http));
            }
            ensure!(
                Instant::now() < deadline,
                "the coordinator printed no addresses within {START_TIMEOUT:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn printed_after(&self, prefix: &str) -> Option<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let (_, rest) = text.split_once(prefix)?;
        Some(rest.split(['`', '/', '\n', ' ']).next()?.to_owned())
    }

    /// Its processor time so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').context("no stat line")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let times = fields.get(11..13).context("no times in the stat line")?;
        let ticks: f64 = times.iter().flat_map(|ticks| ticks.parse::<f64>()).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Its resident memory in MB.
    pub(crate) fn resident_megabytes(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kilobytes.context("no VmRSS")?.parse::<f64>()? / 1e3)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The age of the oldest heartbeat in a scrape.
pub(crate) fn oldest_heartbeat(scraped: &str) -> anyhow::Result<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let series = "finetune_worker_last_heartbeat_timestamp_seconds{";
    let heartbeats = scraped.lines().filter(|line| line.starts_with(series));
    let heartbeats = heartbeats.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(now.as_secs_f64() - heartbeats.fold(f64::INFINITY, f64::min))
}
