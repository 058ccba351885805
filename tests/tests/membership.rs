//! Workers join and leave during a run, without a change to its result.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Child;

use integration_tests::baseline::Baseline;
use integration_tests::{Ended, Run, SMALL, STEADY, STEADY_STEPS, journal, terminate, worker};
use serde_json::Value;

/// Starts a worker that joins `run`.
fn join(run: &Run) -> Child {
    let url = run.join_address().expect("the run waits for workers");
    let mut command = worker(&url);
    run.track(&mut command);
    command.spawn().expect("the worker starts")
}

/// A run whose workers the test starts; the first one is started.
fn run_of(workers: &str, arguments: &[&str]) -> (Run, Child) {
    let arguments = [&["--no-spawn", workers], SMALL, STEADY, arguments].concat();
    let mut run = Run::start(&arguments);
    run.until("an address to join", |run| run.join_address().is_some());
    let first = join(&run);
    (run, first)
}

/// World size, first step and end of each part of each epoch.
fn parts(ended: &Ended) -> Vec<(u64, u64, u64)> {
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    let epochs = ended.epochs();
    let rows = epochs
        .iter()
        .flat_map(|epoch| epoch["ledger"].as_array().expect("a list"));
    rows.map(|row| {
        let (first, end) = (number(row, "first"), number(row, "end"));
        (number(row, "world_size"), first, end)
    })
    .filter(|(_, first, end)| first < end)
    .collect()
}

/// Checks that no worker was lost, so that no step was made twice.
fn nothing_was_lost(ended: &Ended) {
    for event in journal(&ended.path()) {
        let event = event["event"].as_str().unwrap_or_default();
        assert!(!matches!(event, "lost" | "recovered"), "{}", ended.output);
    }
}

#[test]
fn a_worker_that_joins_late_makes_the_world_larger() {
    let (mut run, mut first) = run_of("--workers=1", &["--max-workers=2"]);
    run.until("a first step", |run| run.steps() >= 3);
    let mut second = join(&run);
    let ended = run.wait().succeeded().left_no_process();
    for worker in [&mut first, &mut second] {
        assert!(worker.wait().expect("a child of this process").success());
    }
    Baseline::of(STEADY).assert_same(&ended);
    nothing_was_lost(&ended);
    let parts = parts(&ended);
    assert_eq!(parts.first().map(|part| part.0), Some(1), "{parts:?}");
    assert_eq!(
        parts.last(),
        Some(&(2, 0, STEADY_STEPS as u64)),
        "{parts:?}\n{}",
        ended.output
    );
}

#[test]
fn a_worker_that_gets_sigterm_leaves_at_a_step_boundary() {
    let (mut run, mut first) = run_of("--workers=2", &[]);
    let mut second = join(&run);
    run.until("the second epoch", |run| {
        run.steps() >= STEADY_STEPS as u64 + 3
    });
    // Rank 0 serves the rendezvous store.
    terminate(first.id());
    assert!(first.wait().expect("a child of this process").success());
    assert!(!run.has_ended(), "{}", run.output());
    let ended = run.wait().succeeded().left_no_process();
    assert!(second.wait().expect("a child of this process").success());
    Baseline::of(STEADY).assert_same(&ended);
    nothing_was_lost(&ended);
    let parts = parts(&ended);
    assert_eq!(parts.first().map(|part| part.0), Some(2), "{parts:?}");
    assert_eq!(parts.last().map(|part| part.0), Some(1), "{parts:?}");
    assert!(ended.output.contains("left after draining"));
}
