//! A simulated cluster: one seed is one schedule, in virtual time. Workers die, hang, come late
//! and go; sessions break; the coordinator is killed and resumed; old messages come again; and
//! after every event the invariants of [`witness`] must hold.
//!
//! `SIMULATIONS` says how many schedules are played, `SIMULATION_SEED` which one is shown.

mod cluster;
mod disk;
mod driver;
mod faults;
mod lineage;
mod network;
mod process;
mod ring;
mod scenario;
mod thread;
mod witness;

use cluster::Cluster;

/// Schedules that every change has to pass.
const SCHEDULES: u64 = 10_000;
/// The tests among which they are dealt out, so that these run side by side.
const PARTS: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play_part(part: u64) {
    let count = variable("SIMULATIONS").unwrap_or(SCHEDULES);
    for seed in (part..count).step_by(PARTS as usize) {
        Cluster::new(seed, false, false).play();
    }
}

#[test]
fn schedules_of_the_first_part_hold() {
    play_part(0);
}

#[test]
fn schedules_of_the_second_part_hold() {
    play_part(1);
}

#[test]
fn schedules_of_the_third_part_hold() {
    play_part(2);
}

#[test]
fn schedules_of_the_fourth_part_hold() {
    play_part(3);
}

/// Without a fault every run ends as the reference does, at the first attempt.
#[test]
fn undisturbed_schedules_end_as_they_should() {
    for seed in 0..300 {
        let mut cluster = Cluster::new(seed, true, false);
        cluster.play();
        assert_eq!(cluster.incarnations, 1, "seed {seed}: {:?}", cluster.outcome);
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

#[test]
#[ignore]
fn survey() {
    let count = variable("SIMULATIONS").unwrap_or(1000);
    let mut found: std::collections::BTreeMap<String, Vec<u64>> = Default::default();
    std::panic::set_hook(Box::new(|_| {}));
    let start = std::time::Instant::now();
    for seed in 0..count {
        let result = std::panic::catch_unwind(|| Cluster::new(seed, false, false).play());
        if let Err(error) = result {
            let text = error.downcast_ref::<String>().cloned().unwrap_or_else(|| error.downcast_ref::<&str>().unwrap_or(&"?").to_string());
            let line = text.lines().next().unwrap_or_default();
            let name: String = line.split(": ").skip(1).collect::<Vec<_>>().join(": ").chars().take(110).collect();
            found.entry(name).or_default().push(seed);
        }
    }
    let bad: usize = found.values().map(Vec::len).sum();
    let mut list: Vec<_> = found.into_iter().collect();
    list.sort_by_key(|(_, seeds)| std::cmp::Reverse(seeds.len()));
    for (name, seeds) in list.iter().take(25) {
        eprintln!("{:>5} {name}  {:?}", seeds.len(), &seeds[..seeds.len().min(4)]);
    }
    eprintln!("{bad} of {count} in {:?}", start.elapsed());
}
