//! What an orchestrator such as Kubernetes needs: one command that starts a run or resumes it, and a
//! file that shows that a worker is alive.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Stdio};

use integration_tests::baseline::Baseline;
use integration_tests::{Run, SMALL, STEADY, coordinator, kill, worker};
use rustix::process::Signal;

#[test]
fn one_command_starts_a_run_resumes_it_and_does_not_touch_a_completed_one() {
    let arguments = [&["--workers=2", "--resume-if-exists"], SMALL, STEADY].concat();
    let mut run = Run::start(&arguments);
    run.until("the second epoch", |run| run.steps() > 7);
    let workers = run.workers();
    run.signal(Signal::KILL);
    workers.into_iter().for_each(kill);
    let killed = run.wait();
    let directory = killed.path();
    let again = |directory: &Path| {
        let mut command = coordinator();
        command.args(&arguments).arg("--run-dir").arg(directory);
        let output = command.output().expect("the coordinator starts");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{}: {text}", output.status);
        text
    };
    let output = again(&directory);
    assert!(output.contains("resuming after"), "{output}");
    Baseline::of(STEADY).assert_same(&killed);

    let before = std::fs::read(directory.join("events.jsonl")).expect("the journal");
    let output = again(&directory);
    assert!(output.contains("has ended"), "{output}");
    let after = std::fs::read(directory.join("events.jsonl")).expect("the journal");
    assert_eq!(before, after, "the journal of a completed run has changed");
}

#[test]
fn a_health_file_exists_as_long_as_its_worker() {
    let arguments = [
        &[
            "--workers=2",
            "--no-spawn",
            "--epochs=400",
            "--patience=400",
        ],
        SMALL,
    ]
    .concat();
    let mut run = Run::start(&arguments);
    run.until("an address to join", |run| run.join_address().is_some());
    let url = run.join_address().expect("just seen");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = ["a", "b"].map(|name| folder.path().join(name));
    let start = |file: &std::path::PathBuf| -> Child {
        worker(&url)
            .args(["--advertise", "localhost", "--health-file"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the worker starts")
    };
    let workers = files.each_ref().map(start);
    let all_contain = |word: &str| {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        files.iter().all(|file| read(file).trim() == word)
    };
    run.until("both workers to train", |_| all_contain("training"));
    run.signal(Signal::INT);
    run.wait();
    for mut worker in workers {
        worker.wait().expect("a child of this process");
    }
    assert!(files.iter().all(|file| !file.exists()));
}
