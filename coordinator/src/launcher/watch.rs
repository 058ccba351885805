//! The task that owns one worker process from start to reaping. Since nothing else waits for
//! the process, its id stays its own for as long as signals are sent to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::token::Token;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::exit::{WorkerExit, WorkerStatus};

/// Lines of a log's beginning that are shown.
const HEAD_LINES: usize = 5;
/// Lines of a log's end that are shown.
const TAIL_LINES: usize = 20;
/// A log is read only this far from either end, however long its lines are.
const WINDOW: u64 = 16 * 1024;

pub(super) struct Watched {
    pub(super) local_rank: usize,
    pub(super) pid: u32,
    pub(super) child: Child,
    pub(super) token: Token,
    pub(super) log_path: PathBuf,
    /// Where this process's part of the log begins.
    pub(super) log_start: u64,
}

pub(super) async fn watch(
    mut watched: Watched,
    stopped: oneshot::Receiver<Duration>,
    exits: mpsc::UnboundedSender<WorkerExit>,
) {
    // `wait` would close it, and the worker would take that for the coordinator's death.
    let mut stdin = watched.child.stdin.take();
    if let Some(stdin) = &mut stdin {
        // An empty pipe takes it at once. A worker that is gone already cannot read it, and its
        // exit says so.
        let _ = stdin.write_all(watched.token.line().as_bytes()).await;
    }
    let mut asked_to_stop = false;
    let status = tokio::select! {
        status = watched.child.wait() => status,
        Ok(grace) = stopped => {
            asked_to_stop = true;
            stop(&mut watched, grace).await
        }
    };
    drop(stdin);
    let status = match status {
        Ok(status) => WorkerStatus::from(status),
        Err(error) => {
            tracing::error!(local_rank = watched.local_rank, pid = watched.pid, %error, "cannot wait for a worker");
            WorkerStatus::Unknown
        }
    };
    let (log_head, log_tail) = excerpts(&watched.log_path, watched.log_start).unwrap_or_default();
    let Watched {
        local_rank,
        pid,
        log_path,
        ..
    } = watched;
    // Nobody listens any more once the run is over.
    let _ = exits.send(WorkerExit {
        local_rank,
        pid,
        status,
        asked_to_stop,
        log_path,
        log_head,
        log_tail,
    });
}

async fn stop(watched: &mut Watched, grace: Duration) -> io::Result<std::process::ExitStatus> {
    signal(watched.pid, Signal::TERM);
    match tokio::time::timeout(grace, watched.child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            tracing::warn!(
                local_rank = watched.local_rank,
                pid = watched.pid,
                "a worker did not end within the grace and is killed"
            );
            signal(watched.pid, Signal::KILL);
            watched.child.wait().await
        }
    }
}

/// Signals the group that the worker leads, so that nothing it started stays behind.
pub(super) fn signal(pid: u32, signal: Signal) {
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have just ended, which is what the signal is for.
    let _ = group.map(|group| kill_process_group(group, signal));
}

fn excerpts(path: &Path, start: u64) -> io::Result<(Vec<String>, Vec<String>)> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut window = |from: u64, to: u64| -> io::Result<String> {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.by_ref().take(to - from).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let head = window(start, end.min(start + WINDOW))?;
    let tail = window(start.max(end.saturating_sub(WINDOW)), end)?;
    let head = head.lines().take(HEAD_LINES).map(str::to_owned).collect();
    let tail: Vec<_> = tail.lines().map(str::to_owned).collect();
    Ok((head, tail[tail.len().saturating_sub(TAIL_LINES)..].to_vec()))
}
