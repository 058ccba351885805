//! Every victim, every moment, every blow.

use std::time::Duration;

use integration_tests::STEADY;
use integration_tests::baseline::Baseline;
use integration_tests::fault::{Fault, Injection, Target};
use integration_tests::injection_point::InjectionPoint;

use crate::caught;
use crate::table::{Row, by_cause};

/// One that the network does not notice, and one that it does.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(7)];

/// Strikes every run of the matrix and prints what became of it; whether all ended the same.
pub(crate) fn run(only: Option<&str>, seed: u64) -> bool {
    let faults: Vec<(u64, Injection)> = (1..).zip(all()).collect();
    let faults: Vec<_> = faults
        .into_iter()
        .filter(|(_, fault)| only.is_none_or(|only| fault.name().contains(only)))
        .collect();
    let baseline = Baseline::of(STEADY);
    let mut rows = Vec::new();
    println!("| fault | same result | seconds | steps lost | seen |\n|---|---|---:|---:|---|");
    for (number, fault) in &faults {
        // Of its own, so that ONLY and SEED repeat it.
        let draw = fastrand::Rng::with_seed(seed ^ (number << 32)).u64(..);
        let (same, seconds, lost, seen) = match caught(|| fault.inflict(&baseline, draw)) {
            Ok(outcome) => {
                let same = outcome.result.map(|_| ());
                (same, outcome.seconds, outcome.steps_lost, outcome.seen)
            }
            Err(panic) => (Err(panic), None, 0, String::new()),
        };
        println!(
            "| {} | {} | {} | {lost} | {seen} |",
            fault.name(),
            match &same {
                Ok(()) => "yes",
                Err(difference) => difference,
            },
            seconds.map_or_else(String::new, |seconds| format!("{seconds:.2}")),
        );
        rows.push(Row {
            cause: format!("{}, {}", fault.target.name(), fault.fault.name()),
            same: same.is_ok(),
            seconds,
            steps_lost: Some(lost),
        });
    }
    println!("\n{}", by_cause(&rows));
    rows.iter().all(|row| row.same)
}

fn all() -> impl Iterator<Item = Injection> {
    let faults = [Fault::Kill].into_iter().chain(PAUSES.map(Fault::Pause));
    faults.flat_map(|fault| {
        Target::ALL.into_iter().flat_map(move |target| {
            InjectionPoint::ALL.into_iter().map(move |point| Injection {
                target,
                point,
                fault,
            })
        })
    })
}
