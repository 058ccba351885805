//! Many simulated workers against one real coordinator: `crowd WORKERS SECONDS`. It prints how long
//! they take to get in, what they and a scrape cost the coordinator, and how long an epoch's barrier
//! takes. It fails when a worker is lost.

mod worker;

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use integration_tests::{coordinator, metrics};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use worker::{Moments, Shared};

/// Steps of an epoch; the pace makes one a second.
const STEPS: usize = 6;
const PACE: Duration = Duration::from_secs(1);
/// Samples of each worker in a step.
const SAMPLES: usize = 2;
/// How long they may take to get in and to form a group.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let number = |at: usize| std::env::args().nth(at).and_then(|text| text.parse().ok());
    let (Some(workers), Some(seconds)) = (number(1), number(2)) else {
        bail!("usage: crowd WORKERS SECONDS");
    };
    // Each worker is a connection of this process, and one of the coordinator's.
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    setrlimit(Resource::Nofile, descriptors)?;
    let folder = tempfile::tempdir()?;
    let global_batch = workers * SAMPLES;
    let log = folder.path().join("log");
    let mut child = Ended(
        coordinator()
            .args([
                "--no-spawn",
                "--data=demo",
                "--device=cpu",
                "--epochs=1000",
                "--patience=999",
            ])
            .args([
                "--listen=127.0.0.1:0",
                "--metrics-listen=127.0.0.1:0",
                "--stall-timeout=600",
            ])
            .arg(format!("--workers={workers}"))
            .arg(format!("--global-batch={global_batch}"))
            .arg(format!("--run-dir={}", folder.path().join("run").display()))
            .stdout(std::fs::File::create(&log)?)
            .stderr(Stdio::inherit())
            .env("RUST_LOG", "warn")
            .spawn()?,
    );
    let said = |before: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let (_, rest) = text.split_once(before)?;
        Some(rest.split(['`', '/', '\n', ' ']).next()?.to_owned())
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let (listens, shows) = loop {
        if let (Some(listens), Some(shows)) =
            (said("--coordinator http://"), said("metrics: http://"))
        {
            break (listens, shows);
        }
        ensure!(
            Instant::now() < deadline,
            "the coordinator does not say where it listens"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let shared = Arc::new(Shared {
        url: format!("http://{listens}"),
        // A fifth of them validates.
        files: global_batch * STEPS * 5 / 4,
        pace: PACE,
        moments: Default::default(),
    });
    let (end, ended) = watch::channel(false);
    let began = Instant::now();
    let crowd: Vec<_> = (0..workers)
        .map(|at| tokio::spawn(worker::live(shared.clone(), at, ended.clone())))
        .collect();
    let since = |at: Option<Instant>| at.map_or(0.0, |at| (at - began).as_secs_f64());
    while shared.moments(|moments| moments.planned < workers) {
        let (lost, welcomed) = shared.moments(|m| (m.lost.first().cloned(), m.welcomed));
        if let Some(lost) = lost {
            bail!("{lost}");
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "only {welcomed} of {workers} got in"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shared.moments(|moments| {
        let (welcomed, refused) = (since(moments.last_welcome), moments.refused);
        println!(
            "{workers} workers registered in {welcomed:.2} s ({refused} attempts turned away)"
        );
        println!(
            "all scanned, grouped and at work in {:.2} s",
            since(moments.last_plan)
        );
    });

    let pid = child.0.id();
    let (cpu, watched) = (cpu_seconds(pid)?, Instant::now());
    let mut scrapes = Vec::new();
    let (mut bytes, mut oldest): (usize, f64) = (0, 0.0);
    while watched.elapsed() < Duration::from_secs(seconds as u64) {
        // About as often as `deploy/prometheus` asks, but not in step with the heartbeats.
        tokio::time::sleep(Duration::from_millis(3_700)).await;
        let (address, asked) = (shows.clone(), Instant::now());
        let text =
            tokio::task::spawn_blocking(move || metrics::get(&address, "/metrics")).await??;
        scrapes.push(asked.elapsed().as_secs_f64());
        bytes = text.len();
        oldest = oldest.max(oldest_heartbeat(&text)?);
    }
    let share = (cpu_seconds(pid)? - cpu) / watched.elapsed().as_secs_f64();
    println!(
        "coordinator: {:.1} % of a core, {:.0} MB resident",
        100.0 * share,
        resident(pid)?
    );
    println!(
        "/metrics: {:.0} kB in at most {:.3} s",
        bytes as f64 / 1e3,
        scrapes.iter().copied().fold(0.0, f64::max)
    );
    println!("oldest heartbeat seen in a scrape: {oldest:.1} s");
    let Moments { barriers, lost, .. } = shared.moments(std::mem::take);
    let longest = barriers.iter().max().copied().unwrap_or_default();
    println!(
        "{} epoch barriers, from the last report to the last plan at most {:.3} s",
        barriers.len(),
        longest.as_secs_f64()
    );
    // Nobody is lost as long as the crowd means to stay.
    let _ = end.send(true);
    for worker in crowd {
        worker.await?;
    }
    child.0.kill()?;
    ensure!(
        lost.is_empty(),
        "{} workers were lost: {}",
        lost.len(),
        lost.join("; ")
    );
    Ok(())
}

/// A coordinator that does not outlive this program.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn oldest_heartbeat(text: &str) -> anyhow::Result<f64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let name = "finetune_worker_last_heartbeat_timestamp_seconds{";
    let heard = text.lines().filter(|line| line.starts_with(name));
    let heard = heard.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(now.as_secs_f64() - heard.fold(f64::INFINITY, f64::min))
}

/// What the kernel counts processor time in, on every Linux that this runs on (USER_HZ).
const TICKS: f64 = 100.0;

/// Processor time of a process so far.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a stat line")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields
        .get(11..13)
        .context("times")?
        .iter()
        .flat_map(|at| at.parse::<f64>())
        .sum();
    Ok(ticks / TICKS)
}

fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("VmRSS")?;
    Ok(kilobytes.parse::<f64>()? / 1e3)
}
