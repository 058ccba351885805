//! However a run ends, it says why, keeps what it has, and leaves no process behind.

use std::time::{Duration, Instant};

use integration_tests::{Run, all_gone, kill};
use rustix::process::Signal;

const ENDLESS: &[&str] = &["--epochs=500", "--patience=500"];

fn with_an_epoch_behind_it(further: &[&str]) -> Run {
    let mut run = Run::small(2, &[ENDLESS, further].concat());
    run.until("a first epoch", |run| {
        run.path().join("best.safetensors").exists()
    });
    run
}

#[test]
fn a_killed_worker_that_is_needed_is_named_with_rank_host_step_and_log() {
    let run = with_an_epoch_behind_it(&["--max-restarts=0", "--min-workers=2"]);
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
    all_gone(&workers);
}

#[test]
fn an_interrupt_stops_at_a_step_boundary_and_keeps_the_best() {
    let run = with_an_epoch_behind_it(&[]);
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
    all_gone(&workers);
}

#[test]
fn workers_of_a_killed_coordinator_end_when_none_takes_over() {
    let run = with_an_epoch_behind_it(&["--hold-timeout=1"]);
    let workers = run.workers();
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code, -1);
    all_gone(&workers);
}

#[test]
fn a_run_writes_everything_it_promises() {
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
fn trouble_while_workers_start_ends_the_run_at_once() {
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
        all_gone(&workers);
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
    let ended = Run::start(arguments).wait().succeeded();
    let accuracies = ended.column("validation_accuracy");
    assert!(
        accuracies.iter().any(|accuracy| *accuracy >= 0.9),
        "{accuracies:?}"
    );
}
