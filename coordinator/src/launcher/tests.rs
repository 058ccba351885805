//! Real processes: small shell scripts replace the worker.

use std::time::Instant;

use coordinator_core::event::ProcessStatus;

use super::*;

struct Bench {
    folder: tempfile::TempDir,
    launcher: Launcher,
    events: mpsc::UnboundedReceiver<LauncherEvent>,
}

fn spec(binary: PathBuf, logs: &Path) -> LaunchSpec {
    LaunchSpec {
        binary,
        coordinator_url: "unix:///x".to_owned(),
        advertise: None,
        log_format: LogFormat::Text,
        logs: logs.to_owned(),
        placement: Placement::Cpu,
    }
}

fn bench(script: &str, change: impl FnOnce(&mut LaunchSpec)) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("worker");
    // Written by a process of its own: a descriptor of this process, inherited for a moment by
    // what another test starts, would make the script busy.
    let written = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\"; chmod 755 \"$1\"",
            "sh",
        ])
        .args([binary.as_os_str(), script.as_ref()])
        .status();
    assert!(written.unwrap().success());
    let mut spec = spec(binary, folder.path());
    change(&mut spec);
    let (launcher, events) = Launcher::new(spec);
    Bench {
        folder,
        launcher,
        events,
    }
}

impl Bench {
    async fn event(&mut self) -> LauncherEvent {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, self.events.recv())
            .await
            .expect("no event in time")
            .unwrap()
    }

    /// Starts a worker and returns its process id.
    async fn launch(&mut self, local_rank: u32) -> u32 {
        self.launcher.launch(local_rank);
        match self.event().await {
            LauncherEvent::Started {
                local_rank: started,
                pid,
            } => {
                assert_eq!(started, local_rank);
                pid
            }
            other => panic!("not started: {other:?}"),
        }
    }

    async fn exit(&mut self) -> WorkerExit {
        match self.event().await {
            LauncherEvent::Exited(exit) => exit,
            other => panic!("no exit: {other:?}"),
        }
    }

    /// Waits until the script has written `text`, so that its traps are in place.
    async fn until_logged(&self, local_rank: u32, text: &str) -> String {
        let path = self.folder.path().join(format!("worker-{local_rank}.log"));
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            if log.contains(text) {
                return log;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{text} is missing in {log}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether a process runs; one that is dead but not reaped by its own parent does not.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test]
async fn a_worker_is_told_what_it_needs_and_its_end_is_reported() {
    let script = "echo first; echo \"$@\" \"local_rank=$FINETUNE_LOCAL_RANK gpu=$CUDA_VISIBLE_DEVICES \
                  at=$FINETUNE_ADVERTISE\"; seq 100; echo last >&2; exit 3";
    let mut bench = bench(script, |spec| {
        spec.placement = Placement::Cuda(vec!["4".to_owned(), "6".to_owned()]);
        spec.advertise = advertised("10.0.0.3:7000".parse().unwrap());
    });
    let pid = bench.launch(1).await;
    let exit = bench.exit().await;
    assert_eq!(
        (exit.local_rank, exit.pid, exit.status),
        (1, pid, ProcessStatus::Code(3))
    );
    assert_eq!(
        exit.log_head[..2],
        [
            "first".to_owned(),
            "--coordinator unix:///x local_rank=1 gpu=6 at=10.0.0.3".to_owned(),
        ]
    );
    assert_eq!((exit.log_head.len(), exit.log_tail.len()), (5, 20));
    assert_eq!(exit.log_tail[18..], ["100".to_owned(), "last".to_owned()]);
    assert!(
        exit.to_string().contains("exited with code 3; its log is"),
        "{exit}"
    );
}

#[tokio::test]
async fn a_restarted_worker_continues_the_log_but_reports_its_own_lines() {
    let mut bench = bench("echo \"from $$\"", |_| ());
    bench.launch(0).await;
    bench.exit().await;
    let second = bench.launch(0).await;
    let exit = bench.exit().await;
    assert_eq!(exit.log_head, [format!("from {second}")]);
    assert_eq!(
        std::fs::read_to_string(exit.log_path)
            .unwrap()
            .lines()
            .count(),
        2
    );
}

#[tokio::test]
async fn a_missing_libtorch_and_a_signal_are_put_into_words() {
    let script = "echo \"$0: error while loading shared libraries: libtorch_cpu.so: cannot open \
                  shared object file: No such file or directory\" >&2; exit 127";
    let mut missing = bench(script, |_| ());
    missing.launch(0).await;
    let exit = missing.exit().await;
    assert_eq!(exit.missing_library(), Some("libtorch_cpu.so"));
    assert!(
        exit.to_string().contains("`make setup` installs it"),
        "{exit}"
    );
    assert!(exit.lacks_libtorch());

    // As deploy/dist/worker ends.
    let mut other = bench("echo 'the worker needs 2.11.0' >&2; exit 8", |_| ());
    other.launch(0).await;
    let exit = other.exit().await;
    assert!(exit.lacks_libtorch() && exit.missing_library().is_none());
    assert_eq!(exit.log_head, ["the worker needs 2.11.0"]);

    let mut killed = bench("kill -9 $$", |_| ());
    killed.launch(0).await;
    let exit = killed.exit().await;
    assert_eq!(exit.status, ProcessStatus::Signal(9));
    assert!(!exit.stopped && !exit.lacks_libtorch());
    assert!(
        exit.to_string()
            .contains("SIGKILL (often by the kernel, for lack of memory)"),
        "{exit}"
    );
}

#[test]
fn a_missing_worker_program_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("worker");
    for exists in [false, true] {
        if exists {
            std::fs::write(&plain, "not executable").unwrap();
        }
        let refused = worker_program(Some(&plain)).unwrap_err();
        assert!(refused.to_string().contains("--worker-binary"), "{refused}");
    }
}

#[tokio::test]
async fn shutdown_lets_willing_workers_end_and_leaves_no_process_of_stubborn_ones() {
    let mut willing = bench(
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
        |_| (),
    );
    for local_rank in 0..2 {
        willing.launch(local_rank).await;
        willing.until_logged(local_rank, "ready").await;
    }
    willing.launcher.shutdown(Duration::from_secs(20)).await;
    for _ in 0..2 {
        let exit = willing.exit().await;
        assert_eq!(exit.status, ProcessStatus::Code(0));
        assert_eq!(exit.log_tail.last().unwrap(), "bye");
    }

    // It ignores SIGTERM and so does its child.
    let mut stubborn = bench(
        "trap '' TERM; sleep 1000 & echo \"child $!\"; wait; sleep 1000",
        |_| (),
    );
    let pid = stubborn.launch(0).await;
    let log = stubborn.until_logged(0, "child").await;
    let child = log.trim().strip_prefix("child ").unwrap().to_owned();
    assert!(alive(&pid.to_string()) && alive(&child));
    let begun = Instant::now();
    stubborn.launcher.shutdown(Duration::from_millis(200)).await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(stubborn.exit().await.status, ProcessStatus::Signal(9));
    let begun = Instant::now();
    while alive(&child) {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the worker's child stays behind"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!alive(&pid.to_string()));
}

#[tokio::test]
async fn a_launch_replaces_the_process_that_still_runs_there() {
    let mut bench = bench("trap '' TERM; echo \"ready $$\"; sleep 1000", |_| ());
    let first = bench.launch(0).await;
    bench.until_logged(0, &format!("ready {first}")).await;
    bench.launcher.launch(0);
    let exit = bench.exit().await;
    assert_eq!((exit.pid, exit.status), (first, ProcessStatus::Signal(9)));
    assert!(exit.stopped);
    let LauncherEvent::Started { pid: second, .. } = bench.event().await else {
        panic!("not started again");
    };
    assert!(second != first && alive(&second.to_string()));
    bench.launcher.shutdown(Duration::ZERO).await;
    assert_eq!(bench.exit().await.pid, second);
    assert!(!alive(&first.to_string()) && !alive(&second.to_string()));
}

#[tokio::test]
async fn a_launch_that_fails_is_reported_and_so_is_a_log_that_cannot_be_read() {
    let mut unwritable = bench("exit 0", |spec| spec.logs = spec.logs.join("absent"));
    unwritable.launcher.launch(1);
    let event = unwritable.event().await;
    assert!(
        matches!(
            event,
            LauncherEvent::Failed {
                local_rank: 1,
                error: LaunchError::Log { .. }
            }
        ),
        "{event:?}"
    );

    // The script lies beside its log.
    let mut unreadable = bench("rm \"${0%/*}/worker-0.log\"", |_| ());
    unreadable.launch(0).await;
    let exit = unreadable.exit().await;
    assert_eq!(exit.status, ProcessStatus::Code(0));
    assert!(exit.log_tail[0].contains("cannot be read"), "{exit:?}");
}

#[tokio::test]
async fn stdin_stays_open_while_the_coordinator_lives() {
    let script = "echo ready; read line; echo \"stdin was closed\"";
    let mut bench = bench(script, |_| ());
    let pid = bench.launch(0).await;
    bench.until_logged(0, "ready").await;
    // Its standard input is a pipe whose writing end this process holds.
    let pipe = std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert!(pipe.to_string_lossy().starts_with("pipe:"), "{pipe:?}");
    let held = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .any(|descriptor| std::fs::read_link(descriptor.path()).is_ok_and(|link| link == pipe));
    assert!(held, "the worker's stdin was closed");
    bench.launcher.shutdown(Duration::from_secs(20)).await;
    let exit = bench.exit().await;
    assert_eq!(exit.status, ProcessStatus::Signal(15));
    assert_eq!(exit.log_tail.last().unwrap(), "ready");
}

#[test]
fn only_an_address_that_other_machines_can_use_is_advertised() {
    let of = |listening: &str| advertised(listening.parse().unwrap());
    assert_eq!(of("10.0.0.3:7"), Some("10.0.0.3".parse().unwrap()));
    assert_eq!(of("[::ffff:10.0.0.3]:7"), Some("10.0.0.3".parse().unwrap()));
    assert_eq!(of("[fd00::3]:7"), Some("fd00::3".parse().unwrap()));
    for listening in ["127.0.0.1:7", "[::1]:7", "0.0.0.0:7", "[::]:7"] {
        assert_eq!(of(listening), None, "{listening}");
    }
}
