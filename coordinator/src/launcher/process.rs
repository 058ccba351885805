//! Watches one worker process from its start until it is reaped. Nothing else waits for the
//! process, so its id stays its own for as long as signals are sent to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use coordinator_core::event::ProcessStatus;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;

use super::command::Started;
use super::exit::WorkerExit;

/// Lines from the beginning of a log that are shown.
const HEAD_LINES: usize = 5;
/// Lines from the end of a log that are shown.
const TAIL_LINES: usize = 20;
/// A log is read only this far from either end, however long its lines are.
const WINDOW: u64 = 16 * 1024;

/// Returns how the process ended. `stopped` takes a grace period and asks it to end.
pub(super) async fn watch(
    local_rank: u32,
    started: Started,
    stopped: oneshot::Receiver<Duration>,
) -> WorkerExit {
    let Started {
        mut child,
        pid,
        log_path,
        log_start,
    } = started;
    // `wait` would close it, and the worker would take that for the coordinator's death.
    let stdin = child.stdin.take();
    let (status, stopped) = tokio::select! {
        biased;
        status = child.wait() => (status, false),
        Ok(grace) = stopped => (stop(local_rank, pid, &mut child, grace).await, true),
    };
    drop(stdin);
    let status = match status {
        Ok(status) => status_of(status),
        Err(error) => {
            tracing::error!(local_rank, pid, %error, "cannot wait for a worker process");
            ProcessStatus::Unknown
        }
    };
    let (log_head, log_tail) = excerpts(&log_path, log_start).unwrap_or_else(|error| {
        let line = vec![format!("(this log cannot be read: {error})")];
        (line.clone(), line)
    });
    WorkerExit {
        local_rank,
        pid,
        status,
        stopped,
        log_path,
        log_head,
        log_tail,
    }
}

fn status_of(status: ExitStatus) -> ProcessStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessStatus::Code(code),
        (None, Some(signal)) => ProcessStatus::Signal(signal),
        (None, None) => ProcessStatus::Unknown,
    }
}

async fn stop(
    local_rank: u32,
    pid: u32,
    child: &mut Child,
    grace: Duration,
) -> io::Result<ExitStatus> {
    if !grace.is_zero() {
        signal(pid, Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
            return status;
        }
        tracing::warn!(
            local_rank,
            pid,
            ?grace,
            "worker exceeded the grace period; sending SIGKILL"
        );
    }
    signal(pid, Signal::KILL);
    child.wait().await
}

/// Signals the process group that the worker leads, so that nothing it started stays behind.
pub(super) fn signal(pid: u32, signal: Signal) {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It fails when the group has ended, which is what the signal is for.
    let _ = group.map(|group| kill_process_group(group, signal));
}

/// The first and the last lines of a log from `start` on.
fn excerpts(path: &Path, start: u64) -> io::Result<(Vec<String>, Vec<String>)> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut window = |from: u64, to: u64| -> io::Result<String> {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.by_ref().take(to - from).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    // A log that was truncated meanwhile is shorter than `start`.
    let head = window(start.min(end), end.min(start + WINDOW))?;
    let tail = window(start.max(end.saturating_sub(WINDOW)).min(end), end)?;
    let head = head.lines().take(HEAD_LINES).map(str::to_owned).collect();
    let tail: Vec<_> = tail.lines().map(str::to_owned).collect();
    Ok((head, tail[tail.len().saturating_sub(TAIL_LINES)..].to_vec()))
}
