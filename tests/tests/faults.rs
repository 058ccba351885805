//! A part of the fault matrix, of which `make chaos` runs all: whoever is struck, and whenever,
//! the result is that of the undisturbed run.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use integration_tests::STEADY;
use integration_tests::fault::{Blow, Fault, Outcome, Victim};
use integration_tests::moment::Moment;
use integration_tests::truth::Truth;

fn inflict(victim: Victim, moment: Moment, blow: Blow, draw: u64) -> Outcome {
    let fault = Fault {
        victim,
        moment,
        blow,
    };
    let outcome = fault.inflict(&Truth::of(STEADY), draw);
    println!("{outcome:#?}");
    if let Err(difference) = &outcome.result {
        panic!("{}: {difference}\n{}", fault.name(), outcome.seen);
    }
    outcome
}

fn killed(victim: Victim, moment: Moment, draw: u64) -> Outcome {
    inflict(victim, moment, Blow::Kill, draw)
}

/// A worker that dies takes at most the step with it that it was in.
fn a_worker_killed(victim: Victim, moment: Moment, draw: u64) {
    let outcome = killed(victim, moment, draw);
    assert!(outcome.steps_lost <= 1, "{outcome:?}");
    assert!(outcome.seen.contains("lost rank"), "{outcome:?}");
}

#[test]
fn a_worker_killed_while_decoding() {
    killed(Victim::RankOne, Moment::Decoding, 0);
}

#[test]
fn a_worker_killed_while_forming() {
    a_worker_killed(Victim::RankOne, Moment::Forming, 0);
}

#[test]
fn a_worker_killed_in_forward() {
    a_worker_killed(Victim::RankOne, Moment::Forward, 3);
}

#[test]
fn rank_zero_killed_in_the_all_reduce() {
    a_worker_killed(Victim::RankZero, Moment::Backward, 7);
}

#[test]
fn rank_zero_killed_in_the_optimizer() {
    a_worker_killed(Victim::RankZero, Moment::Optimizer, 12);
}

#[test]
fn rank_zero_killed_in_a_validation() {
    a_worker_killed(Victim::RankZero, Moment::Validation, 0);
}

#[test]
fn rank_zero_killed_while_it_hands_over_a_checkpoint() {
    a_worker_killed(Victim::RankZero, Moment::Checkpoint, 0);
}

#[test]
fn rank_zero_killed_while_the_run_ends() {
    killed(Victim::RankZero, Moment::Finishing, 10);
}

#[test]
fn a_worker_paused_for_longer_than_the_network_may_be_silent() {
    let pause = Blow::Pause(Duration::from_secs(7));
    inflict(Victim::RankOne, Moment::Backward, pause, 1);
}

#[test]
fn the_coordinator_killed_in_a_step() {
    let outcome = killed(Victim::Coordinator, Moment::Backward, 5);
    assert!(!outcome.seen.contains("lost"), "{outcome:?}");
    assert!(outcome.steps_lost <= 1, "{outcome:?}");
}

#[test]
fn the_coordinator_killed_while_it_writes_a_checkpoint() {
    killed(Victim::Coordinator, Moment::Checkpoint, 1);
}

#[test]
fn all_killed_in_a_step() {
    killed(Victim::All, Moment::Optimizer, 15);
}
