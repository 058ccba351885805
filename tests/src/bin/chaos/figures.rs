//! How long a killed worker is missed: from its SIGKILL to the first step of the recovered run.

use std::time::Duration;

use integration_tests::fault::{Target, first_step_after_recovery, now, recoveries};
use integration_tests::{Run, SMALL, kill};

use crate::caught;
use crate::table::times;

/// Of each kind.
const BLOWS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures it with a replacement and without, and prints both; whether it could be measured.
pub(crate) fn run(seed: u64) -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload: {}", load.trim());
    println!("\n| SIGKILL of a worker | blows | median | maximum |\n|---|---:|---:|---:|");
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
    line("with a replacement", replaced) & line("shrinking to one", shrunk)
}

fn endless(further: &[&str]) -> Run {
    let arguments = ["--epochs=5000", "--patience=5000"];
    let mut run = Run::start(&[&["--workers=2"], SMALL, &arguments, further].concat());
    run.until("a few steps", |run| run.steps() >= 10);
    run
}

/// All on one run, each somewhere in a step.
fn replaced(random: &mut fastrand::Rng) -> Vec<f64> {
    let mut run = endless(&[]);
    let mut seconds = Vec::new();
    for _ in 0..BLOWS {
        std::thread::sleep(Duration::from_secs_f64(1.0 + random.f64()));
        let target = [Target::RankZero, Target::RankOne][random.usize(..2)];
        seconds.push(strike(&mut run, target));
    }
    seconds
}

/// Each on a run of its own.
fn shrunk(random: &mut fastrand::Rng) -> Vec<f64> {
    let strike_one = |_| {
        let mut run = endless(&["--max-restarts=0", "--rejoin-timeout=0"]);
        std::thread::sleep(Duration::from_secs_f64(0.5 * random.f64()));
        let target = [Target::RankZero, Target::RankOne][random.usize(..2)];
        strike(&mut run, target)
    };
    (0..BLOWS).map(strike_one).collect()
}

fn strike(run: &mut Run, target: Target) -> f64 {
    let (pids, known) = (target.pids(run), recoveries(&run.path()).len());
    let struck = now();
    pids.into_iter().for_each(kill);
    let first = first_step_after_recovery(run, PATIENCE, struck, known);
    first.map_or_else(|| panic!("no step:\n{}", run.output()), |at| at - struck)
}
