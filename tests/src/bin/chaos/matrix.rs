//! Every target, at every injection point, with every fault.

use std::time::Duration;

use integration_tests::baseline::Baseline;
use integration_tests::fault::{Fault, Injection, Target};
use integration_tests::injection_point::InjectionPoint;
use integration_tests::{STEADY, caught};

use crate::table::{Row, by_cause};

/// Shorter and longer than the time after which a silent peer counts as lost.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(7)];

/// Injects each fault of the matrix into a run of its own and prints a table; whether all results
/// are the same.
pub(crate) fn run(only: Option<&str>, seed: u64) -> bool {
    let injections: Vec<(u64, Injection)> = (1..).zip(all()).collect();
    let injections: Vec<_> = injections
        .into_iter()
        .filter(|(_, injection)| only.is_none_or(|only| injection.name().contains(only)))
        .collect();
    let baseline = Baseline::of(STEADY);
    let mut rows = Vec::new();
    println!("| fault | same result | seconds | steps lost | observed |\n|---|---|---:|---:|---|");
    for (number, injection) in &injections {
        // It does not depend on the other faults, so that ONLY and SEED repeat it.
        let draw = fastrand::Rng::with_seed(seed ^ (number << 32)).u64(..);
        let (same, seconds, lost, observed) = match caught(|| injection.run(&baseline, draw)) {
            Ok(outcome) => {
                let same = outcome.result.map(|_| ());
                (same, outcome.seconds, outcome.steps_lost, outcome.observed)
            }
            Err(panic) => (Err(panic), None, 0, String::new()),
        };
        println!(
            "| {} | {} | {} | {lost} | {observed} |",
            injection.name(),
            match &same {
                Ok(()) => "yes",
                Err(difference) => difference,
            },
            seconds.map_or_else(String::new, |seconds| format!("{seconds:.2}")),
        );
        rows.push(Row {
            cause: format!("{}, {}", injection.target.name(), injection.fault.name()),
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
