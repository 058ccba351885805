//! What is measured, and printed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use integration_tests::metrics;

use crate::coordinator::{Coordinator, oldest_heartbeat};
use crate::worker::Shared;

/// How long all workers may take to register and to receive a plan.
const TIMEOUT: Duration = Duration::from_secs(120);
/// About as often as `deploy/prometheus` scrapes, but not in step with the heartbeats.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(3_700);

/// Waits until all workers have a plan, and prints how long that took.
pub(crate) async fn registration(
    shared: &Arc<Shared>,
    workers: usize,
    began: Instant,
) -> anyhow::Result<()> {
    while shared.record(|record| record.planned < workers) {
        let (lost, registered) = shared.record(|r| (r.lost.first().cloned(), r.registered));
        if let Some(lost) = lost {
            bail!("{lost}");
        }
        ensure!(
            began.elapsed() < TIMEOUT,
            "only {registered} of {workers} workers registered within {TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let since = |at: Option<Instant>| at.map_or(0.0, |at| (at - began).as_secs_f64());
    shared.record(|record| {
        let (registered, refused) = (since(record.last_registered), record.refused);
        println!("{workers} workers registered in {registered:.2} s ({refused} attempts refused)");
        let planned = since(record.last_plan);
        println!("all had scanned, formed a group and received a plan in {planned:.2} s");
    });
    Ok(())
}

/// Scrapes the coordinator for `time`, and prints what it used and how long the scrapes took.
pub(crate) async fn load(
    coordinator: &Coordinator,
    http: &str,
    time: Duration,
) -> anyhow::Result<()> {
    let (cpu, began) = (coordinator.cpu_seconds()?, Instant::now());
    let (mut bytes, mut slowest, mut oldest) = (0, Duration::ZERO, 0.0_f64);
    while began.elapsed() < time {
        tokio::time::sleep(SCRAPE_INTERVAL).await;
        let (address, asked) = (http.to_owned(), Instant::now());
        let get = move || metrics::get(&address, "/metrics");
        let scraped = tokio::task::spawn_blocking(get).await??;
        slowest = slowest.max(asked.elapsed());
        bytes = scraped.len();
        oldest = oldest.max(oldest_heartbeat(&scraped)?);
    }
    let share = (coordinator.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64();
    println!(
        "coordinator: {:.1} % of a core, {:.0} MB resident",
        100.0 * share,
        coordinator.resident_megabytes()?
    );
    let (kilobytes, slowest) = (bytes as f64 / 1e3, slowest.as_secs_f64());
    println!("/metrics: {kilobytes:.0} kB in at most {slowest:.3} s");
    println!("oldest heartbeat in a scrape: {oldest:.1} s");
    Ok(())
}
