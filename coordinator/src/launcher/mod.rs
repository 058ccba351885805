//! Starts worker processes on this machine, watches for their end, and ends them.
//! Owns the processes and their log files; it decides neither when to start nor what an end
//! means for the run.
//!
//! ```text
//!  spawn ──▶ running ──▶ exited ──▶ WorkerExit on the channel
//!               │ shutdown: SIGTERM to the worker's process group
//!               └─ grace over: SIGKILL to the group ──▶ exited
//! ```
//!
//! A worker holds the reading end of a pipe as its stdin, whose writing end lives as long as
//! the coordinator: the end of that file tells it that the coordinator is gone. The one line
//! that comes through it is the token that lets the worker in.

mod children;
mod exit;
mod gpus;
pub mod shared_cache;
mod watch;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::token::Token;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::LogFormat;
pub use children::Children;
pub use exit::{WorkerExit, WorkerStatus};
pub use gpus::{Gpus, Placement};

/// Why workers cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no worker program.
    #[error(
        "the worker program {path} is not there or not executable; build it with `cargo build --release` or name it with --worker-binary"
    )]
    NoBinary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// `device = cuda` and each worker needs a GPU of its own.
    #[error(
        "{workers} workers need {workers} GPUs but {gpus} visible here; use fewer --workers, or --device cpu",
        gpus = gpus_are(*.gpus)
    )]
    TooFewGpus {
        /// Workers asked for.
        workers: usize,
        /// GPUs found.
        gpus: usize,
    },
    /// The log file cannot be created.
    #[error("cannot create the worker log {path}: {source}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refuses to start the program.
    #[error("cannot start {path}: {source}")]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn gpus_are(count: usize) -> String {
    match count {
        0 => "none is".to_owned(),
        1 => "1 is".to_owned(),
        many => format!("{many} are"),
    }
}

/// What all workers of a run have in common.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The worker program.
    pub binary: PathBuf,
    /// What workers connect to, `http://HOST:PORT`.
    pub coordinator_url: String,
    /// What they show to be let in, handed over in their standard input: arguments and
    /// environments of processes are there for others to list.
    pub token: Token,
    /// An existing folder for `worker-<local_rank>.log`.
    pub logs: PathBuf,
    /// Workers that may run at the same time.
    pub workers: usize,
    /// Where they compute, from [`Gpus::place`].
    pub placement: Placement,
    /// CPU threads of each; `None` divides the machine's among the workers.
    pub threads_per_worker: Option<usize>,
    /// The form of their logs.
    pub log_format: LogFormat,
}

/// How long a killed process may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// The workers that run on this machine.
#[derive(Debug)]
pub struct Launcher {
    children: Children,
    spec: LaunchSpec,
    exits: mpsc::UnboundedSender<WorkerExit>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    local_rank: usize,
    stop: oneshot::Sender<Duration>,
    watcher: JoinHandle<()>,
}

impl Launcher {
    /// Checks that the worker program is there. The ends of workers arrive on the receiver.
    ///
    /// # Errors
    /// [`LaunchError::NoBinary`].
    pub fn new(
        spec: LaunchSpec,
    ) -> Result<(Self, mpsc::UnboundedReceiver<WorkerExit>), LaunchError> {
        if !is_executable(&spec.binary) {
            return Err(LaunchError::NoBinary { path: spec.binary });
        }
        let (exits, receiver) = mpsc::unbounded_channel();
        Ok((
            Self {
                children: Children::default(),
                spec,
                exits,
                running: Vec::new(),
            },
            receiver,
        ))
    }

    /// Starts the worker of `local_rank` (counted from 0, below `workers`) and returns its process id.
    /// What still runs in that slot is killed first; the slot's log continues.
    ///
    /// # Errors
    /// Its log cannot be created, or the operating system refuses.
    pub async fn launch(&mut self, local_rank: usize) -> Result<u32, LaunchError> {
        let (former, others) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|worker| worker.local_rank == local_rank);
        self.running = others;
        for worker in former {
            // A watcher that has ended needs no order.
            let _ = worker.stop.send(Duration::ZERO);
            // A process that even SIGKILL does not end hangs in the kernel; the new one has to
            // do without what it holds.
            let _ = tokio::time::timeout(KILL_WAIT, worker.watcher).await;
        }
        self.spawn(local_rank)
    }

    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Its log cannot be created, or the operating system refuses.
    fn spawn(&mut self, local_rank: usize) -> Result<u32, LaunchError> {
        let log_path = self.spec.logs.join(format!("worker-{local_rank}.log"));
        let refuse = |source| LaunchError::Log {
            path: log_path.clone(),
            source,
        };
        let mut options = std::fs::OpenOptions::new();
        let log = options
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(refuse)?;
        let log_start = log.metadata().map_err(refuse)?.len();

        let mut command = Command::new(&self.spec.binary);
        command
            .args(["--coordinator", &self.spec.coordinator_url])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(refuse)?)
            .stderr(log)
            // A group of its own: Ctrl-C on the terminal reaches the coordinator alone, which
            // then stops the workers at a step boundary.
            .process_group(0)
            .kill_on_drop(true);
        self.environment(local_rank, &mut command);
        let child = command.spawn().map_err(|source| LaunchError::Spawn {
            path: self.spec.binary.clone(),
            source,
        })?;
        // A child that was not awaited yet has its id.
        let pid = child.id().unwrap_or_default();
        let (stop, stopped) = oneshot::channel();
        let watched = watch::Watched {
            local_rank,
            pid,
            child,
            token: self.spec.token.clone(),
            log_path,
            log_start,
        };
        self.children.add(pid);
        let children = self.children.clone();
        let watching = watch::watch(watched, stopped, self.exits.clone());
        let watcher = tokio::spawn(async move {
            watching.await;
            children.remove(pid);
        });
        self.running.retain(|worker| !worker.watcher.is_finished());
        self.running.push(Running {
            local_rank,
            stop,
            watcher,
        });
        tracing::info!(local_rank, pid, "started a worker");
        Ok(pid)
    }

    /// The processes that run, for whoever has to end at once.
    #[must_use]
    pub fn children(&self) -> Children {
        self.children.clone()
    }

    /// Asks every worker to end, kills those that are still there after `grace`, and returns
    /// when all are reaped.
    pub async fn shutdown(&mut self, grace: Duration) {
        let running = std::mem::take(&mut self.running);
        let watchers: Vec<_> = running
            .into_iter()
            .map(|worker| {
                // A watcher that has ended needs no order.
                let _ = worker.stop.send(grace);
                worker.watcher
            })
            .collect();
        for watcher in watchers {
            match tokio::time::timeout(grace + KILL_WAIT, watcher).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the watcher of a worker failed"),
                Err(_) => tracing::error!("a worker hangs in the kernel and is left behind"),
            }
        }
    }

    fn environment(&self, local_rank: usize, command: &mut Command) {
        // Exactly what this run means, not what the coordinator happened to inherit.
        // The worker's own variables of these names are for workers started by hand.
        for variable in [
            "FINETUNE_DATA",
            "FINETUNE_PRETRAINED",
            "FINETUNE_COORDINATOR",
            "FINETUNE_TLS_CERT",
            "FINETUNE_TLS_KEY",
            "FINETUNE_TLS_CA",
            "FINETUNE_TLS_SERVER_NAME",
            "FINETUNE_TOKEN_FILE",
        ] {
            command.env_remove(variable);
        }
        command.env(proto::LOCAL_RANK_VARIABLE, local_rank.to_string());
        command.env("FINETUNE_LOG_FORMAT", self.spec.log_format.word());
        command.env(
            "CUDA_VISIBLE_DEVICES",
            self.spec.placement.visible_to(local_rank),
        );
        let threads = self.spec.threads_per_worker;
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            if threads.is_some() || std::env::var_os(variable).is_none() {
                let count = threads.unwrap_or_else(|| share_of_processors(self.spec.workers));
                command.env(variable, count.to_string());
            }
        }
    }
}

/// The worker program beside this executable.
#[must_use]
pub fn default_binary() -> PathBuf {
    let name = format!("worker{}", std::env::consts::EXE_SUFFIX);
    std::env::current_exe()
        .ok()
        .and_then(|executable| Some(executable.parent()?.join(&name)))
        .unwrap_or_else(|| PathBuf::from(&name))
}

/// CPU threads of each of `workers` processes, at least 1.
#[must_use]
pub fn share_of_processors(workers: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / workers.max(1)).max(1)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
