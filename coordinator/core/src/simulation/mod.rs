//! A simulated cluster: one seed is one schedule, in virtual time. The coordinator's `Run` and the
//! workers' own control code (`worker_control`) are the shipped ones; the network with its
//! conversions and transfers, the disk, the collectives and the arithmetic are simulated. Workers
//! die, hang, join late and drain; sessions break; the coordinator is killed and resumed; old
//! messages are delivered again; and after every event the invariants of [`invariants`] and
//! [`outcomes`] must hold.
//!
//! `SIMULATIONS` is the number of schedules, `SIMULATION_SEED` the one that `one_seed` prints.

mod cluster;
mod disk;
mod driver;
mod faults;
mod invariants;
mod lineage;
mod network;
mod outcomes;
mod process;
mod ring;
mod scenario;
mod tasks;
mod thread;
mod wire;

use std::collections::BTreeMap;

use cluster::Cluster;

/// Schedules that every change has to pass.
const SCHEDULES: u64 = 10_000;
/// What the schedules have to contain: without faults, invariants hold trivially.
const CONTAINED: [&str; 19] = [
    "faults",
    "workers lost",
    "workers left",
    "workers refused",
    "stalls reported",
    "recoveries",
    "resumed coordinators",
    "GPUs that failed",
    "GPUs that still reset",
    "epoch records lost",
    "rollbacks",
    "generations from the beginning",
    "generations from a retained state",
    "generations from a checkpoint",
    "patience",
    "max_epochs",
    "non_finite_loss",
    "interrupted",
    "failed",
];

type Tally = BTreeMap<&'static str, u64>;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays every `stride`th schedule below `count`.
fn play(first: u64, stride: u64, count: u64) -> Tally {
    let mut tally = Tally::new();
    for seed in (first..count).step_by(stride as usize) {
        let mut cluster = Cluster::new(seed, false, false);
        cluster.play();
        for (what, times) in cluster.tally {
            *tally.entry(what).or_default() += times;
        }
    }
    tally
}

/// The schedules, dealt out among all processors.
#[test]
fn every_schedule_keeps_the_invariants() {
    let count = variable("SIMULATIONS").unwrap_or(SCHEDULES);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let started = std::time::Instant::now();
    let tallies = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || play(part, threads, count)))
            .collect();
        let joined = parts.into_iter().map(|part| part.join());
        joined.collect::<Vec<_>>()
    });
    let mut total = Tally::new();
    for tally in tallies {
        for (what, times) in tally.expect("its thread has printed which invariant is violated") {
            *total.entry(what).or_default() += times;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{count} schedules in {seconds:.1} s, no invariant violated; they contain");
    for (what, times) in &total {
        println!("{times:>12} {what}");
    }
    for what in CONTAINED {
        assert!(
            count < SCHEDULES || total.contains_key(what),
            "no schedule has: {what}"
        );
    }
}

/// Without a fault every run has the result of the reference, at the first attempt.
#[test]
fn undisturbed_schedules_end_as_they_should() {
    for seed in 0..300 {
        let mut cluster = Cluster::new(seed, true, false);
        cluster.play();
        assert_eq!(
            cluster.incarnations, 1,
            "seed {seed}: {:?}",
            cluster.outcome
        );
    }
}

/// Shows the schedule that `SIMULATION_SEED` names.
#[test]
fn one_seed() {
    let seed = variable("SIMULATION_SEED");
    let verbose = seed.is_some();
    let quiet = variable("SIMULATION_QUIET").is_some();
    Cluster::new(seed.unwrap_or(0), quiet, verbose).play();
}
