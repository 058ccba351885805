//! Processes: which ones belong to a run, and the signals that a test sends to them.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A variable in the environment of every process of a run, by which it is found even when its
/// parent has exited.
pub(crate) const MARK: &str = "INTEGRATION_RUN";

/// A live process of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// None for a worker that the test started.
    pub local_rank: Option<u32>,
    /// The process id.
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
    // A zombie has no environment any more.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environment.split(|byte| *byte == 0).find_map(|entry| {
            let entry = std::str::from_utf8(entry).ok()?;
            entry.strip_prefix(name)?.strip_prefix('=')
        })
    };
    // Between fork and exec a child still has its parent's name.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (value(MARK) == Some(mark) && name.trim_end() == "worker").then(|| Process {
        local_rank: value(proto::LOCAL_RANK_VARIABLE)
            .and_then(|local_rank| local_rank.parse().ok()),
        pid,
    })
}

/// The resident memory of a process.
pub fn resident_kib(pid: u32) -> u64 {
    let status = crate::read(Path::new(&format!("/proc/{pid}/status")));
    let (_, rest) = status.split_once("VmRSS:").expect("Linux reports it");
    let number = rest.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    let status = crate::read(Path::new(&format!("/proc/{pid}/stat")));
    status
        .rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Checks that processes exit within a few seconds.
pub fn assert_exited(pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < deadline, "still running: {pids:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends SIGKILL, if the process has not exited.
pub fn kill(process: u32) {
    send(process, Signal::KILL);
}

/// Sends SIGSTOP, if the process has not exited.
pub fn pause(process: u32) {
    send(process, Signal::STOP);
}

/// Sends SIGCONT, if the process has not exited.
pub fn unpause(process: u32) {
    send(process, Signal::CONT);
}

/// Sends SIGTERM, if the process has not exited.
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
