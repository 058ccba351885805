//! A part of the fault matrix, of which `make chaos` runs all: whoever is struck, and whenever,
//! the result is that of the undisturbed run.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use integration_tests::STEADY;
use integration_tests::baseline::Baseline;
use integration_tests::fault::{Fault, Injection, Outcome, Target};
use integration_tests::injection_point::InjectionPoint;

fn inflict(target: Target, point: InjectionPoint, fault: Fault, draw: u64) -> Outcome {
    let fault = Injection {
        target,
        point,
        fault,
    };
    let outcome = fault.inflict(&Baseline::of(STEADY), draw);
    println!("{outcome:#?}");
    if let Err(difference) = &outcome.result {
        panic!("{}: {difference}\n{}", fault.name(), outcome.seen);
    }
    outcome
}

fn killed(target: Target, point: InjectionPoint, draw: u64) -> Outcome {
    inflict(target, point, Fault::Kill, draw)
}

/// A worker that dies takes at most the step with it that it was in.
fn a_worker_killed(target: Target, point: InjectionPoint, draw: u64) {
    let outcome = killed(target, point, draw);
    assert!(outcome.steps_lost <= 1, "{outcome:?}");
    assert!(outcome.seen.contains("lost rank"), "{outcome:?}");
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
fn rank_zero_killed_while_it_hands_over_a_checkpoint() {
    a_worker_killed(Target::RankZero, InjectionPoint::Checkpoint, 0);
}

#[test]
fn rank_zero_killed_while_the_run_ends() {
    killed(Target::RankZero, InjectionPoint::Finishing, 10);
}

#[test]
fn a_worker_paused_for_longer_than_the_network_may_be_silent() {
    let pause = Fault::Pause(Duration::from_secs(7));
    inflict(Target::RankOne, InjectionPoint::Backward, pause, 1);
}

#[test]
fn the_coordinator_killed_in_a_step() {
    let outcome = killed(Target::Coordinator, InjectionPoint::Backward, 5);
    assert!(!outcome.seen.contains("lost"), "{outcome:?}");
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
