//! Processes: which belong to a run, and what can be done to them.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// In the environment of every process of a run, so that it is found also when its parent is
/// gone.
pub(crate) const MARK: &str = "INTEGRATION_RUN";

/// A live process of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its place with the launcher; none for the coordinator and for workers started by hand.
    pub local_rank: Option<u32>,
    /// Its id.
    pub pid: u32,
}

/// The live processes in whose environment [`MARK`] is `mark`, without the coordinator.
pub(crate) fn workers_of(mark: &str) -> Vec<Process> {
    let mut found: Vec<Process> = std::fs::read_dir("/proc")
        .expect("Linux has /proc")
        .flatten()
        .filter_map(|entry| worker_of(mark, entry.file_name().to_str()?.parse().ok()?))
        .collect();
    found.sort();
    found
}

fn worker_of(mark: &str, pid: u32) -> Option<Process> {
    // The memory of a zombie is gone, and its environment with it.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environment.split(|byte| *byte == 0).find_map(|entry| {
            let entry = std::str::from_utf8(entry).ok()?;
            entry.strip_prefix(name)?.strip_prefix('=')
        })
    };
    // Between fork and exec it still has its parent's name.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (value(MARK) == Some(mark) && name.trim_end() == "worker").then(|| Process {
        local_rank: value(proto::LOCAL_RANK_VARIABLE)
            .and_then(|local_rank| local_rank.parse().ok()),
        pid,
    })
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    let status = crate::read(Path::new(&format!("/proc/{pid}/stat")));
    status
        .rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Checks that processes end within a few seconds.
pub fn all_gone(pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < deadline, "still there: {pids:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends SIGKILL. One that has ended by itself stays so.
pub fn kill(process: u32) {
    send(process, Signal::KILL);
}

/// Sends SIGSTOP.
pub fn pause(process: u32) {
    send(process, Signal::STOP);
}

/// Sends SIGCONT.
pub fn go_on(process: u32) {
    send(process, Signal::CONT);
}

/// Sends SIGTERM.
pub fn terminate(process: u32) {
    send(process, Signal::TERM);
}

fn send(process: u32, signal: Signal) {
    match rustix::process::kill_process(pid(process), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot send {signal:?} to {process}: {error}"),
    }
}

pub(crate) fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw as i32).expect("not 0")
}
