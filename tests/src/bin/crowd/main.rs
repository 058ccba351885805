//! Many simulated workers and one real coordinator: `crowd WORKERS SECONDS`. It prints how long the
//! workers take to register, what they and a scrape cost the coordinator, and how long all wait for
//! the plan of the next epoch. It fails when a worker loses its session.

mod coordinator;
mod measure;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use coordinator::Coordinator;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use worker::Shared;

/// Steps of an epoch.
const STEPS: usize = 6;
const STEP_TIME: Duration = Duration::from_secs(1);
/// Samples of each worker in a step.
const SAMPLES: usize = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let number = |at: usize| std::env::args().nth(at).and_then(|text| text.parse().ok());
    let (Some(workers), Some(seconds)) = (number(1), number(2)) else {
        bail!("usage: crowd WORKERS SECONDS");
    };
    // Each worker is a connection of this process and of the coordinator, which inherits the limit.
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    setrlimit(Resource::Nofile, descriptors)?;

    let folder = tempfile::tempdir()?;
    let global_batch = workers * SAMPLES;
    let coordinator = Coordinator::start(folder.path(), workers, global_batch)?;
    let (grpc, http) = coordinator.addresses().await?;
    let shared = Arc::new(Shared {
        url: format!("http://{grpc}"),
        // A fifth of the images is for validation.
        files: global_batch * STEPS * 5 / 4,
        step_time: STEP_TIME,
        record: Default::default(),
    });
    let (end, ended) = watch::channel(false);
    let began = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|at| tokio::spawn(worker::run(shared.clone(), at, ended.clone())))
        .collect();
    measure::registration(&shared, workers, began).await?;
    measure::load(&coordinator, &http, Duration::from_secs(seconds as u64)).await?;

    let (waits, lost) = shared.record(|record| (record.waits.clone(), record.lost.clone()));
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!(
        "{} epochs; from the last report of an epoch to the last plan of the next at most {:.3} s",
        waits.len(),
        longest.as_secs_f64()
    );
    // There is no receiver left only if all workers have failed.
    let _ = end.send(true);
    for task in tasks {
        task.await?;
    }
    ensure!(
        lost.is_empty(),
        "{} workers lost their session: {}",
        lost.len(),
        lost.join("; ")
    );
    Ok(())
}
