//! Whatever is killed, a run ends with the result that it would have had.

use std::time::Duration;

use integration_tests::{Ended, Run, all_gone, kill, pause};
use rustix::process::Signal;

/// Long enough to be hit in the middle, and with rates under which Adam does not divide noise by
/// noise, so that weights can be compared.
const STEADY: &[&str] = &[
    "--epochs=4",
    "--patience=9",
    "--layer-lr=uniform=1e-5",
    "--lr-schedule=constant",
    "--limit-per-class=20",
    "--seed=11",
];

fn undisturbed() -> Ended {
    Run::small(2, STEADY).wait().succeeded()
}

fn largest_difference(a: &Ended, b: &Ended) -> f32 {
    let pairs = a.weights().into_iter().zip(b.weights());
    pairs
        .flat_map(|((name_a, a), (name_b, b))| {
            assert_eq!(name_a, name_b);
            a.into_iter().zip(b).map(|(a, b)| (a - b).abs())
        })
        .fold(0.0, f32::max)
}

/// The same losses and weights, and each step of each epoch made once.
fn same_result(disturbed: &Ended, reference: &Ended) {
    for key in ["train_loss", "validation_loss"] {
        let (a, b) = (disturbed.column(key), reference.column(key));
        assert_eq!(a.len(), b.len(), "{}", disturbed.output);
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-5, "{key}: {a} and {b}");
        }
    }
    let difference = largest_difference(disturbed, reference);
    assert!(difference < 1e-5, "weights differ by {difference}");
    for epoch in disturbed.epochs() {
        let mut next = 0;
        for row in epoch["ledger"].as_array().unwrap() {
            assert_eq!(row["first"], next, "{epoch}");
            next = row["end"].as_u64().unwrap();
        }
        assert_eq!(next, 10, "160 samples are 10 steps of 16: {epoch}");
    }
}

#[test]
fn a_killed_worker_is_replaced_and_nothing_is_lost() {
    let reference = undisturbed();
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 13);
    let workers = run.workers();
    kill(workers[1]);
    run.until("a recovery", |run| run.output().contains("recovered in"));
    // And the other one, which holds the only state by now, or has given it to the new one.
    run.until("the third epoch", |run| run.steps() >= 25);
    kill(workers[0]);
    let ended = run.wait().succeeded();
    same_result(&ended, &reference);
    assert!(
        ended.output.matches("recovered in").count() == 2,
        "{}",
        ended.output
    );
    assert!(ended.output.contains("lost rank "), "{}", ended.output);
}

#[test]
fn without_a_replacement_fewer_go_on() {
    let reference = undisturbed();
    let arguments = [STEADY, &["--max-restarts=0", "--rejoin-timeout=0"]].concat();
    let mut run = Run::small(2, &arguments);
    run.until("the second epoch", |run| run.steps() >= 13);
    kill(run.workers()[1]);
    let ended = run.wait().succeeded();
    same_result(&ended, &reference);
    assert!(ended.output.contains("1 ranks go on"), "{}", ended.output);
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let reference = undisturbed();
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 13);
    pause(run.workers()[1]);
    let ended = run.wait().succeeded();
    same_result(&ended, &reference);
    assert!(ended.output.contains("recovered in"), "{}", ended.output);
}

#[test]
fn a_killed_coordinator_is_resumed_with_the_workers_that_held() {
    let reference = undisturbed();
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 13);
    let workers = run.workers();
    run.signal(Signal::KILL);
    let killed = run.wait();
    std::thread::sleep(Duration::from_millis(500));
    let ended = killed.resume(&[]).wait().succeeded();
    same_result(&ended, &reference);
    let lost = ended.output.contains("lost rank");
    assert!(!lost, "the workers came back:\n{}", ended.output);
    all_gone(&workers);
}

#[test]
fn when_all_are_killed_it_goes_on_from_the_checkpoint() {
    let reference = undisturbed();
    let arguments = [STEADY, &["--checkpoint-every=3"]].concat();
    let mut run = Run::small(2, &arguments);
    run.until("a checkpoint within the second epoch", |run| {
        let folder = std::fs::read_dir(run.path().join("checkpoints"));
        folder.into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("epoch-0002-step-") && !name.ends_with("-00000")
        })
    });
    let workers = run.workers();
    run.signal(Signal::KILL);
    workers.iter().for_each(|worker| kill(*worker));
    let killed = run.wait();
    all_gone(&workers);
    // On another number of workers, too.
    let ended = killed.resume(&["--workers=1"]).wait().succeeded();
    same_result(&ended, &reference);
}

#[test]
fn an_interrupted_run_is_resumed_where_it_stopped() {
    let reference = undisturbed();
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 13);
    run.signal(Signal::INT);
    let stopped = run.wait();
    assert_eq!(stopped.code, 130, "{}", stopped.output);
    let ended = stopped.resume(&[]).wait().succeeded();
    same_result(&ended, &reference);
    let again = ended.resume(&[]).wait();
    assert_eq!(again.code, 2, "{}", again.output);
    assert!(
        again.output.contains("nothing to resume"),
        "{}",
        again.output
    );
}
