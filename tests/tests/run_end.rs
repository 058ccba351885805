//! A run that ends prints the reason, keeps its results, and leaves no process behind.

use std::time::{Duration, Instant};

use integration_tests::{Run, assert_exited, kill};
use rustix::process::Signal;

const ENDLESS: &[&str] = &["--epochs=500", "--patience=500"];

fn started_with_one_epoch_completed(further: &[&str]) -> Run {
    let mut run = Run::small(2, &[ENDLESS, further].concat());
    run.until("a first epoch", |run| {
        run.path().join("best.safetensors").exists()
    });
    run
}

#[test]
fn the_loss_of_a_required_worker_is_reported_with_rank_host_step_and_log() {
    let run = started_with_one_epoch_completed(&["--max-restarts=0", "--min-workers=2"]);
    let workers = run.workers();
    assert_eq!(workers.len(), 2, "{}", run.output());
    let started = Instant::now();
    kill(workers[1]);
    let ended = run.wait();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "took {:?}",
        started.elapsed()
    );
    assert_eq!(ended.code, 7, "{}", ended.output);
    for expected in ["rank 1 on ", " after step ", "SIGKILL", "worker-1.log"] {
        assert!(
            ended.output.contains(expected),
            "no `{expected}` in:\n{}",
            ended.output
        );
    }
    assert!(ended.path().join("best.safetensors").exists());
    assert_exited(&workers);
}

#[test]
fn an_interrupt_stops_at_a_step_boundary_and_keeps_the_best_weights() {
    let run = started_with_one_epoch_completed(&[]);
    let workers = run.workers();
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.code, 130, "{}", ended.output);
    assert!(ended.path().join("best.safetensors").exists());
    assert!(
        ended.path().join("predictions.png").exists(),
        "{}",
        ended.output
    );
    assert!(!ended.epochs().is_empty());
    assert_exited(&workers);
}

#[test]
fn workers_exit_after_the_hold_timeout_when_the_coordinator_was_killed() {
    let run = started_with_one_epoch_completed(&["--hold-timeout=1"]);
    let workers = run.workers();
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code, -1);
    assert_exited(&workers);
}

#[test]
fn a_run_writes_all_documented_files() {
    let ended = Run::small(2, &["--epochs=3"]).wait().succeeded();
    for name in [
        "config.toml",
        "split.json",
        "metrics.jsonl",
        "best.safetensors",
        "predictions.png",
        "curves.png",
        "logs/worker-0.log",
        "logs/worker-1.log",
    ] {
        assert!(
            ended.path().join(name).exists(),
            "no {name}:\n{}",
            ended.output
        );
    }
    let split: serde_json::Value =
        serde_json::from_slice(&std::fs::read(ended.path().join("split.json")).unwrap()).unwrap();
    let count = |key: &str| split[key].as_array().unwrap().len();
    assert_eq!(
        (count("classes"), count("train"), count("validation")),
        (10, 96, 24)
    );
    let losses = ended.column("train_loss");
    assert!(losses.last() < losses.first(), "it learns: {losses:?}");
    let epoch = &ended.epochs()[0];
    for key in ["learning_rates", "seconds"] {
        assert!(epoch[key].is_object(), "{key} in {epoch}");
    }
    assert!(
        ended.output.contains("finished all of 3 epochs"),
        "{}",
        ended.output
    );
}

#[test]
fn a_loss_or_an_interrupt_during_startup_ends_the_run_at_once() {
    for kill_one in [true, false] {
        let mut run = Run::small(2, &[ENDLESS, &["--max-restarts=0"]].concat());
        run.until("two processes", |run| run.workers().len() == 2);
        let workers = run.workers();
        if kill_one {
            kill(workers[0]);
        } else {
            run.signal(Signal::INT);
        }
        let ended = run.wait();
        let expected = if kill_one { 7 } else { 130 };
        assert_eq!(ended.code, expected, "{}", ended.output);
        assert_exited(&workers);
    }
}

#[test]
fn the_demo_job_learns() {
    let arguments = &[
        "--workers=2",
        "--data=demo",
        "--epochs=4",
        "--metrics-listen=127.0.0.1:0",
    ];
    let mut run = Run::start(arguments);
    // The second epoch suffices; the other two would take as long again.
    run.until("an accuracy of 90 %", |run| {
        let epochs = std::fs::read_to_string(run.path().join("metrics.jsonl"));
        epochs.unwrap_or_default().lines().any(|line| {
            let epoch: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            epoch["validation_accuracy"].as_f64() >= Some(0.9)
        })
    });
}
