//! The recovery time after a worker was killed: from SIGKILL to the first step of the next
//! generation.

use std::time::Duration;

use integration_tests::fault::{Target, first_step_after_recovery, now, recoveries};
use integration_tests::{Run, SMALL, caught, kill};

use crate::table::times;

/// Samples of each measurement.
const SAMPLES: usize = 12;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures the time with and without a replacement worker and prints both; whether both could be
/// measured.
pub(crate) fn run(seed: u64) -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload: {}", load.trim());
    println!("\n| SIGKILL of a worker | samples | median | maximum |\n|---|---:|---:|---:|");
    let mut random = fastrand::Rng::with_seed(seed);
    let line = |name: &str, measured: Result<Vec<f64>, String>| match measured {
        Ok(seconds) => {
            println!("| {name} | {} | {} |", seconds.len(), times(seconds));
            true
        }
        Err(panic) => {
            println!("| {name} | {panic} | |");
            false
        }
    };
    let replaced = caught(|| replaced(&mut random));
    let shrunk = caught(|| shrunk(&mut random));
    line("with a replacement", replaced) & line("without a replacement", shrunk)
}

fn endless(further: &[&str]) -> Run {
    let arguments = ["--epochs=5000", "--patience=5000"];
    let mut run = Run::start(&[&["--workers=2"], SMALL, &arguments, further].concat());
    run.until("a few steps", |run| run.steps() >= 10);
    run
}

/// All in one run, at random moments of a step.
fn replaced(random: &mut fastrand::Rng) -> Vec<f64> {
    let mut run = endless(&[]);
    let mut seconds = Vec::new();
    for _ in 0..SAMPLES {
        std::thread::sleep(Duration::from_secs_f64(1.0 + random.f64()));
        let target = [Target::RankZero, Target::RankOne][random.usize(..2)];
        seconds.push(time_to_recover(&mut run, target));
    }
    seconds
}

/// Each in a run of its own.
fn shrunk(random: &mut fastrand::Rng) -> Vec<f64> {
    let sample = |_| {
        let mut run = endless(&["--max-restarts=0", "--rejoin-timeout=0"]);
        std::thread::sleep(Duration::from_secs_f64(0.5 * random.f64()));
        let target = [Target::RankZero, Target::RankOne][random.usize(..2)];
        time_to_recover(&mut run, target)
    };
    (0..SAMPLES).map(sample).collect()
}

fn time_to_recover(run: &mut Run, target: Target) -> f64 {
    let (pids, known) = (target.pids(run), recoveries(&run.path()).len());
    let injected = now();
    pids.into_iter().for_each(kill);
    let first = first_step_after_recovery(run, TIMEOUT, injected, known);
    first.map_or_else(
        || panic!("no step after the fault:\n{}", run.output()),
        |at| at - injected,
    )
}
