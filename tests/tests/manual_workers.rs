//! Workers that the coordinator did not start, and the metrics of a run.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use integration_tests::{Run, SMALL, demo_set};
use rustix::process::Signal;
use tempfile::TempDir;

/// Starts a worker with these arguments, which joins the run at `url`.
fn worker(url: &str, arguments: &[&str]) -> Child {
    integration_tests::worker(url)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts")
}

/// The first word of the output with this prefix.
fn address(run: &Run, prefix: &str) -> Option<String> {
    let output = run.output();
    let word = output
        .split_whitespace()
        .find(|word| word.starts_with(prefix))?;
    Some(word.trim_matches(['`', ',']).to_owned())
}

fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("an http address");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("the endpoint answers");
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn waiting_run(epochs: &str) -> (Run, String) {
    let arguments = [&["--workers=2", "--no-spawn"], SMALL, &[epochs]].concat();
    let mut run = Run::start(&arguments);
    run.until("an address to join", |run| run.join_address().is_some());
    let url = run.join_address().expect("just seen");
    (run, url)
}

#[test]
fn two_workers_started_manually_complete_a_run() {
    let (run, url) = waiting_run("--epochs=1");
    let workers = [worker(&url, &[]), worker(&url, &[])];
    run.wait().succeeded();
    for mut worker in workers {
        assert!(worker.wait().expect("a child of this process").success());
    }
}

#[test]
fn a_worker_that_stays_trains_one_run_after_another_in_one_process() {
    let one_run = |arguments: &[&str]| {
        let arguments = [
            &["--workers=1", "--no-spawn", "--epochs=1"],
            SMALL,
            arguments,
        ]
        .concat();
        let mut run = Run::start(&arguments);
        run.until("an address to join", |run| run.join_address().is_some());
        run
    };
    let run = one_run(&[]);
    let url = run.join_address().expect("just seen");
    let mut worker = worker(&url, &["--stay"]);
    run.wait().succeeded();
    let listen = url.replace("http://", "--listen=");
    one_run(&[&listen]).wait().succeeded();
    assert!(matches!(worker.try_wait(), Ok(None)), "it stays");
    let pid = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert!(worker.wait().expect("a child of this process").success());
}

/// A copy of the first two classes of the demo set, and the first file that it lacks.
fn other_data() -> (TempDir, String) {
    let demo = demo_set();
    let other = tempfile::tempdir().expect("a temporary folder");
    let mut classes: Vec<_> = std::fs::read_dir(&demo)
        .expect("the demo set")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    classes.sort();
    for class in &classes[..2] {
        std::fs::create_dir(other.path().join(class)).expect("a folder");
        for file in std::fs::read_dir(demo.join(class))
            .expect("a class")
            .flatten()
        {
            let target = other.path().join(class).join(file.file_name());
            std::fs::copy(file.path(), target).expect("a copy");
        }
    }
    let first = format!("{}/image_0001.jpg", classes[2].to_string_lossy());
    (other, first)
}

#[test]
fn a_worker_that_is_expelled_says_why_and_fails() {
    let (other, first) = other_data();
    let endless = ["--epochs=500", "--patience=500"];
    let alone = ["--workers=1", "--max-workers=2", "--no-spawn"];
    let mut run = Run::start(&[&alone, SMALL, &endless].concat());
    run.until("an address to join", |run| run.join_address().is_some());
    let url = run.join_address().expect("just seen");
    let mut trains = worker(&url, &[]);
    run.until("a first step", |run| run.steps() > 0);
    let expelled = integration_tests::worker(&url)
        .arg("--data")
        .arg(other.path())
        .output()
        .expect("the worker starts");
    let said = String::from_utf8_lossy(&expelled.stderr);
    assert_eq!(expelled.status.code(), Some(1), "{said}");
    for expected in ["refused this worker", "different data", first.as_str()] {
        assert!(said.contains(expected), "no `{expected}` in: {said}");
    }
    run.signal(Signal::INT);
    assert_eq!(run.wait().code, 130);
    assert!(trains.wait().expect("a child of this process").success());
}

#[test]
fn workers_with_different_data_are_refused_with_the_first_difference() {
    // The demo set itself, and a part of it.
    let (other, first) = other_data();
    let (run, url) = waiting_run("--epochs=1");
    let path = other.path().to_string_lossy().into_owned();
    let workers = [worker(&url, &[]), worker(&url, &["--data", &path])];
    let ended = run.wait();
    assert_eq!(ended.code, 3, "{}", ended.output);
    for expected in ["different data", first.as_str()] {
        assert!(
            ended.output.contains(expected),
            "no `{expected}` in:\n{}",
            ended.output
        );
    }
    for mut worker in workers {
        worker.wait().expect("a child of this process");
    }
}

#[test]
fn metrics_exist_from_the_start_and_change() {
    let mut run = Run::small(2, &["--epochs=500", "--patience=500"]);
    run.until("the endpoint", |run| address(run, "http://").is_some());
    let url = address(&run, "http://").expect("just seen");
    let first = get(&url);
    let value = |text: &str, series: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    for series in ["finetune_steps_total", "finetune_epoch"] {
        assert!(
            value(&first, series).is_some(),
            "no {series} at the start:\n{first}"
        );
    }
    run.until("a second epoch", |_| {
        value(&get(&url), "finetune_epoch{").or(value(&get(&url), "finetune_epoch ")) >= Some(2.0)
    });
    let later = get(&url);
    for series in [
        "finetune_steps_total",
        "finetune_samples_total",
        "finetune_last_step_timestamp_seconds",
        "finetune_best_validation_loss",
        "finetune_step_duration_seconds_count",
        "finetune_phase_duration_seconds_sum",
    ] {
        assert!(
            value(&later, series) > Some(0.0),
            "{series} is not above 0:\n{later}"
        );
    }
    // The status follows the metrics, and an epoch is also validated.
    run.until("the status to say so", |_| {
        get(&url.replace("/metrics", "/status")).contains("\"state\":\"training\"")
    });
    assert!(get(&url.replace("/metrics", "/healthz")).starts_with("HTTP/1.1 200"));
}
