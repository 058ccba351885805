//! Starts worker processes on this machine, watches for their end, and ends them.
//! Owns the processes and their log files. It decides neither when to start a worker nor what
//! the end of one means for the run.
//!
//! ```text
//!  launch ──▶ former process of the local rank killed ──▶ Started | Failed
//!                                                           │
//!             stop: SIGTERM to the process group ◀── running┤
//!              └─ grace over: SIGKILL to the group          ▼
//!                                                         Exited
//! ```
//!
//! No method waits for a process: what happens to it arrives as [`LauncherEvent`]s on one
//! channel, in the order in which it happened.
//!
//! The standard input of a worker is the reading end of a pipe whose writing end lives as long as
//! the coordinator: its end of file tells the worker that the coordinator is gone.

mod children;
mod command;
mod error;
mod exit;
mod gpus;
mod process;
pub mod shared_cache;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::LogFormat;
pub use children::Children;
pub use error::LaunchError;
pub use exit::WorkerExit;
pub use gpus::{Gpus, Placement};

/// What all workers of a run have in common.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The worker program, from [`worker_program`].
    pub binary: PathBuf,
    /// What workers connect to, `unix:///PATH`.
    pub coordinator_url: String,
    /// The address by which workers of other machines reach those of this one, from
    /// [`advertised`].
    pub advertise: Option<IpAddr>,
    /// An existing folder for `worker-<local_rank>.log`.
    pub logs: PathBuf,
    /// Where they compute, from [`Gpus::place`].
    pub placement: Placement,
    /// The form of their logs.
    pub log_format: LogFormat,
}

/// What happened to a worker process.
#[derive(Debug)]
pub enum LauncherEvent {
    /// It was started.
    Started {
        /// Which worker of this machine.
        local_rank: u32,
        /// Its process id.
        pid: u32,
    },
    /// It could not be started.
    Failed {
        /// Which worker of this machine.
        local_rank: u32,
        /// Why.
        error: LaunchError,
    },
    /// It ended.
    Exited(WorkerExit),
}

/// How long a killed process may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// The workers that run on this machine.
#[derive(Debug)]
pub struct Launcher {
    shared: Shared,
    running: Vec<Running>,
}

/// What every process task needs.
#[derive(Debug, Clone)]
struct Shared {
    spec: Arc<LaunchSpec>,
    children: Children,
    events: mpsc::UnboundedSender<LauncherEvent>,
}

/// The task that starts one process and watches it to its end.
#[derive(Debug)]
struct Running {
    local_rank: u32,
    /// Takes the grace period.
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Launcher {
    /// A launcher that has started nothing. What happens to workers arrives on the receiver.
    #[must_use]
    pub fn new(spec: LaunchSpec) -> (Self, mpsc::UnboundedReceiver<LauncherEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            spec: Arc::new(spec),
            children: Children::default(),
            events,
        };
        let running = Vec::new();
        (Self { shared, running }, receiver)
    }

    /// Starts the worker of `local_rank`, counted from 0. Returns at once: whether it started
    /// arrives as an event. A process that still runs there is killed first. Must be called
    /// within a tokio runtime.
    pub fn launch(&mut self, local_rank: u32) {
        self.running.retain(|worker| !worker.task.is_finished());
        let (former, others) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|worker| worker.local_rank == local_rank);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(self.shared.clone().replace(local_rank, former, stopped));
        self.running = others;
        self.running.push(Running {
            local_rank,
            stop,
            task,
        });
    }

    /// The processes that run, for a caller that has to end them at once.
    #[must_use]
    pub fn children(&self) -> Children {
        self.shared.children.clone()
    }

    /// Asks every worker to end, kills those that still run after `grace`, and returns when all
    /// are reaped. A worker that is about to be started is not started.
    pub async fn shutdown(&mut self, grace: Duration) {
        let running = std::mem::take(&mut self.running);
        let tasks: Vec<_> = running
            .into_iter()
            .map(|worker| {
                // It fails when the process has ended already.
                let _ = worker.stop.send(grace);
                worker.task
            })
            .collect();
        for task in tasks {
            match tokio::time::timeout(grace + KILL_WAIT, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the task that watches a worker failed"),
                Err(_) => {
                    tracing::error!("a worker process did not end after SIGKILL; it is left behind")
                }
            }
        }
    }
}

impl Shared {
    /// The life of one process, from the end of its predecessors to its own.
    async fn replace(
        self,
        local_rank: u32,
        former: Vec<Running>,
        mut stopped: oneshot::Receiver<Duration>,
    ) {
        for worker in former {
            // It fails when the process has ended already.
            let _ = worker.stop.send(Duration::ZERO);
            // A process that survives SIGKILL hangs in the kernel. Its successor starts without
            // what it holds.
            let _ = tokio::time::timeout(KILL_WAIT, worker.task).await;
        }
        if stopped.try_recv().is_ok() {
            return;
        }
        let started = match command::start(&self.spec, local_rank) {
            Ok(started) => started,
            Err(error) => return self.tell(LauncherEvent::Failed { local_rank, error }),
        };
        let pid = started.pid;
        self.children.add(pid);
        tracing::info!(local_rank, pid, "started a worker");
        self.tell(LauncherEvent::Started { local_rank, pid });
        let exit = process::watch(local_rank, started, stopped).await;
        self.children.remove(pid);
        self.tell(LauncherEvent::Exited(exit));
    }

    fn tell(&self, event: LauncherEvent) {
        // It fails when the run is over and the receiver is gone.
        let _ = self.events.send(event);
    }
}

/// The worker program: the one that was asked for, else the one beside this executable.
///
/// # Errors
/// [`LaunchError::NoBinary`].
pub fn worker_program(asked: Option<&Path>) -> Result<PathBuf, LaunchError> {
    let path = asked.map_or_else(default_binary, Path::to_owned);
    match is_executable(&path) {
        true => Ok(path),
        false => Err(LaunchError::NoBinary { path }),
    }
}

fn default_binary() -> PathBuf {
    let name = format!("worker{}", std::env::consts::EXE_SUFFIX);
    std::env::current_exe()
        .ok()
        .and_then(|executable| Some(executable.parent()?.join(&name)))
        .unwrap_or_else(|| PathBuf::from(&name))
}

/// The address of this machine that a listener on `listening` shows to other machines, if it
/// shows one. A worker that connects by a Unix socket sees no route by which its peers reach it.
#[must_use]
pub fn advertised(listening: SocketAddr) -> Option<IpAddr> {
    let ip = listening.ip().to_canonical();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
