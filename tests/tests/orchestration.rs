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

/// `SMALL`, but with the threads that workers get by default.
fn default_threads() -> Vec<&'static str> {
    let chosen = |flag: &&str| flag.starts_with("--threads-per-worker");
    SMALL.iter().filter(|flag| !chosen(flag)).copied().collect()
}

#[test]
fn the_workers_of_a_machine_share_its_processors() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arguments = ["--workers=2", "--max-restarts=0", "--rejoin-timeout=0"];
    let arguments = [&arguments, STEADY, &["--epochs=400"], &default_threads()].concat();
    let mut run = Run::start_with(&arguments, |command| {
        command.env_remove("OMP_NUM_THREADS");
    });
    run.until("a step", |run| run.steps() > 0);
    let threads = |run: &Run| {
        let log = run.log(0);
        let number = log.lines().rev().find_map(|line| {
            let (_, number) = line.split_once("CPU threads has changed threads=")?;
            number.split_whitespace().next()?.parse().ok()
        });
        // Until it is told, it has one.
        number.unwrap_or(1)
    };
    let half = [processors / 2, processors.div_ceil(2)].map(|half| half.max(1));
    assert!(half.contains(&threads(&run)), "{}", run.log(0));
    kill(run.workers()[1]);
    run.until("a recovery", |run| run.output().contains("recovered in"));
    assert_eq!(threads(&run), processors, "{}", run.log(0));
    let warned = run.output().contains("fewer workers");
    assert_eq!(warned, processors == 1, "{}", run.output());
    run.signal(Signal::INT);
    assert_eq!(run.wait().left_no_process().code, 130);
}

#[test]
fn more_threads_than_processors_are_warned_of_once() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let flag = format!("--threads-per-worker={threads}");
    let arguments = ["--workers=1", "--epochs=1", &flag];
    let ended = Run::start(&[&arguments, default_threads().as_slice()].concat()).wait();
    let said = ended.said();
    let told = format!("CPU threads has changed threads={threads}");
    assert_eq!(said.matches(&told).count(), 1, "{said}");
    let output = ended.succeeded().output;
    let warning = format!("with {threads} threads on {} processor", threads - 1);
    assert_eq!(output.matches(&warning).count(), 1, "{output}");
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
