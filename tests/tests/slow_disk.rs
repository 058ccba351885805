//! A slow disk does not delay training, and epochs without a durable record are trained again after
//! a crash, with the same result.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use integration_tests::baseline::Baseline;
use integration_tests::injection_point::LOGS;
use integration_tests::slow_disk::SlowDisk;
use integration_tests::{Run, SMALL, STEADY, STEADY_STEPS, assert_exited, kill};
use rustix::process::Signal;

/// Lines of `metrics.jsonl`.
fn records(run: &Run) -> usize {
    let text = std::fs::read_to_string(run.path().join("metrics.jsonl"));
    text.unwrap_or_default().lines().count()
}

/// Kills a run in its third epoch, when the record of the second is not durable: either all of it
/// or the coordinator alone. It is resumed, and must come to the same result.
fn killed_before_the_record_is_durable(workers_too: bool) {
    let Some(disk) = SlowDisk::new() else {
        return;
    };
    let arguments = [&["--workers=2"], SMALL, STEADY].concat();
    let mut run = Run::start_with(&arguments, |command| disk.prepare(command));
    let second = STEADY_STEPS as u64 + 1;
    run.until("the second epoch", |run| run.steps() >= second);
    run.until("a first record", |run| records(run) == 1);
    disk.delay(Duration::from_secs(5));
    run.until("the third epoch", |run| {
        run.steps() > 2 * STEADY_STEPS as u64
    });
    assert_eq!(records(&run), 1, "the next epoch began without the record");
    let workers = run.workers();
    run.signal(Signal::KILL);
    if workers_too {
        workers.iter().for_each(|worker| kill(*worker));
    }
    let killed = run.wait();
    assert_eq!(killed.epochs().len(), 1);
    disk.delay(Duration::ZERO);
    let ended = killed.resume(&[]).wait().succeeded();
    Baseline::of(STEADY).assert_same(&ended);
    assert_exited(&workers);
    if workers_too {
        let resumed = "resuming after 1 epoch";
        assert!(ended.output.contains(resumed), "{}", ended.output);
    }
}

#[test]
fn an_epoch_whose_record_was_not_durable_is_trained_again() {
    killed_before_the_record_is_durable(true);
}

#[test]
fn workers_that_are_ahead_of_the_records_go_back() {
    killed_before_the_record_is_durable(false);
}

/// The time of day of a log line, in seconds.
fn seconds(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once('T')?;
    let (time, _) = rest.split_once('Z')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    Some((next()? * 60.0 + next()?) * 60.0 + next()?)
}

/// Seconds from the end of each validation to the first step after it, by the log of a worker.
fn gaps(log: &str) -> Vec<f64> {
    let mut gaps = Vec::new();
    let mut validated = None;
    let mut validating = false;
    for line in log.lines().filter(|line| line.contains("phase=")) {
        let (validation, step) = (
            line.contains("phase=Validation"),
            line.contains("phase=Forward"),
        );
        match (validating, validated, seconds(line)) {
            (true, _, Some(at)) if !validation => validated = Some(at),
            (false, Some(since), Some(at)) if step => {
                gaps.push(at - since);
                validated = None;
            }
            _ => {}
        }
        validating = validation;
    }
    gaps
}

#[test]
fn the_next_epoch_does_not_wait_for_the_disk() {
    let Some(disk) = SlowDisk::new() else {
        return;
    };
    let delay = Duration::from_millis(400);
    let arguments = [&["--workers=2"], SMALL, STEADY, &["--epochs=7"]].concat();
    let mut run = Run::start_with(&arguments, |command| {
        disk.prepare(command);
        command.env("RUST_LOG", LOGS);
    });
    run.until("training", |run| run.steps() > 0);
    disk.delay(delay);
    run.until("six epochs", |run| run.steps() > 6 * STEADY_STEPS as u64);
    disk.delay(Duration::ZERO);
    let ended = run.wait().succeeded();
    let log = std::fs::read_to_string(ended.path().join("logs/worker-0.log")).expect("a log");
    let mut gaps = gaps(&log);
    gaps.sort_by(f64::total_cmp);
    println!("seconds between epochs, with syncs of {delay:?}: {gaps:?}");
    assert!(gaps.len() >= 5, "{gaps:?}");
    // A record takes three syncs.
    assert!(gaps[gaps.len() / 2] < delay.as_secs_f64(), "{gaps:?}");
}
