//! Some faults of the matrix that `make chaos` runs completely: whichever process fails, and
//! whenever it does, the result is that of the run without faults.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use integration_tests::STEADY;
use integration_tests::baseline::Baseline;
use integration_tests::fault::{Fault, Injection, Outcome, Target};
use integration_tests::injection_point::InjectionPoint;

fn inject(target: Target, point: InjectionPoint, fault: Fault, draw: u64) -> Outcome {
    let injection = Injection {
        target,
        point,
        fault,
    };
    let outcome = injection.run(&Baseline::of(STEADY), draw);
    println!("{outcome:#?}");
    if let Err(difference) = &outcome.result {
        panic!("{}: {difference}\n{}", injection.name(), outcome.observed);
    }
    outcome
}

fn killed(target: Target, point: InjectionPoint, draw: u64) -> Outcome {
    inject(target, point, Fault::Kill, draw)
}

/// The loss of a worker loses at most the step that it was in.
fn a_worker_killed(target: Target, point: InjectionPoint, draw: u64) {
    let outcome = killed(target, point, draw);
    assert!(outcome.steps_lost <= 1, "{outcome:?}");
    assert!(outcome.observed.contains("lost rank"), "{outcome:?}");
}

#[test]
fn a_worker_killed_while_decoding() {
    killed(Target::RankOne, InjectionPoint::Decoding, 0);
}

#[test]
fn a_worker_killed_while_forming() {
    a_worker_killed(Target::RankOne, InjectionPoint::Forming, 0);
}

#[test]
fn a_worker_killed_in_forward() {
    a_worker_killed(Target::RankOne, InjectionPoint::Forward, 3);
}

#[test]
fn rank_zero_killed_in_the_all_reduce() {
    a_worker_killed(Target::RankZero, InjectionPoint::Backward, 7);
}

#[test]
fn rank_zero_killed_in_the_optimizer() {
    a_worker_killed(Target::RankZero, InjectionPoint::Optimizer, 12);
}

#[test]
fn rank_zero_killed_in_a_validation() {
    a_worker_killed(Target::RankZero, InjectionPoint::Validation, 0);
}

#[test]
fn rank_zero_killed_while_it_uploads_a_checkpoint() {
    a_worker_killed(Target::RankZero, InjectionPoint::Checkpoint, 0);
}

#[test]
fn rank_zero_killed_while_the_run_ends() {
    killed(Target::RankZero, InjectionPoint::Finishing, 10);
}

#[test]
fn a_worker_paused_for_longer_than_the_collective_timeout() {
    let pause = Fault::Pause(Duration::from_secs(7));
    inject(Target::RankOne, InjectionPoint::Backward, pause, 1);
}

#[test]
fn the_coordinator_killed_in_a_step() {
    let outcome = killed(Target::Coordinator, InjectionPoint::Backward, 5);
    assert!(!outcome.observed.contains("lost"), "{outcome:?}");
    assert!(outcome.steps_lost <= 1, "{outcome:?}");
}

#[test]
fn the_coordinator_killed_while_it_writes_a_checkpoint() {
    killed(Target::Coordinator, InjectionPoint::Checkpoint, 1);
}

#[test]
fn all_killed_in_a_step() {
    killed(Target::All, InjectionPoint::Optimizer, 15);
}
