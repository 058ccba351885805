//! A coordinator process and its workers, from start to exit.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::disk::Disk;
use crate::process::{MARK, Process, pid, workers_of};
use crate::{Ended, SMALL, coordinator, kill, metrics, read};

/// How long a run may take, on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A coordinator in a run directory of its own.
#[derive(Debug)]
pub struct Run {
    child: Child,
    location: Location,
    timeout: Duration,
}

/// The folder of a run's directory and of its output.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    directory: Arc<tempfile::TempDir>,
    /// A file system that holds the run directory, if it has one of its own.
    disk: Option<Arc<Disk>>,
}

impl Location {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        Self {
            directory: Arc::new(directory),
            disk: None,
        }
    }

    /// The run directory, as the processes of the run see it.
    fn inside(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.inside().join("run"),
            None => self.directory.path().join("run"),
        }
    }

    /// The run directory, as all other processes see it.
    pub(crate) fn run_dir(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.outside().join("run"),
            None => self.inside(),
        }
    }

    fn output(&self) -> PathBuf {
        self.directory.path().join("output")
    }

    fn mark(&self) -> String {
        self.directory.path().to_string_lossy().into_owned()
    }

    pub(crate) fn spawn(self, mut command: Command) -> Run {
        let output = std::fs::File::create(self.output()).expect("a file");
        command
            .env(MARK, self.mark())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        Run {
            child: command.spawn().expect("the coordinator starts"),
            location: self,
            timeout: TIMEOUT,
        }
    }

    fn command(&self) -> Command {
        match &self.disk {
            Some(disk) => disk.coordinator(),
            None => coordinator(),
        }
    }

    pub(crate) fn resume(self) -> Command {
        let mut command = self.command();
        command.arg("--resume").arg(self.inside());
        command
    }

    pub(crate) fn workers(&self) -> Vec<Process> {
        workers_of(&self.mark())
    }
}

impl Run {
    /// Starts a coordinator with these arguments and a new run directory.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// The same, after `prepare` has changed the command.
    pub fn start_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_at(Location::new(), arguments, prepare)
    }

    /// The same, with the run directory on `disk`.
    pub fn start_on(disk: Arc<Disk>, arguments: &[&str]) -> Self {
        let location = Location {
            disk: Some(disk),
            ..Location::new()
        };
        Self::start_at(location, arguments, |_| {})
    }

    fn start_at(
        location: Location,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = location.command();
        command
            .args(arguments)
            .arg("--run-dir")
            .arg(location.inside());
        prepare(&mut command);
        location.spawn(command)
    }

    /// Starts a run with `workers` workers, the arguments of [`SMALL`] and these.
    pub fn small(workers: usize, arguments: &[&str]) -> Self {
        let workers = format!("--workers={workers}");
        Self::start(&[&[workers.as_str()], SMALL, arguments].concat())
    }

    /// Sets how long the run may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.location.run_dir()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        read(&self.location.output())
    }

    /// The address of the HTTP server, once the coordinator has printed it.
    pub fn metrics_address(&self) -> Option<String> {
        let output = self.output();
        let (_, rest) = output.split_once("metrics: http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    }

    /// The URL for workers, which the coordinator prints with `--no-spawn`.
    pub fn join_address(&self) -> Option<String> {
        let output = self.output();
        let (_, rest) = output.split_once("worker --coordinator ")?;
        let url = rest.split(['`', '\n', ' ']).next()?;
        Some(url.to_owned())
    }

    /// The steps that all ranks have completed so far, by the metrics.
    pub fn steps(&self) -> u64 {
        let steps = self.metrics_address().and_then(|address| {
            let scraped = metrics::get(&address, "/metrics").ok()?;
            metrics::value(&scraped, "finetune_steps_total")
        });
        steps.unwrap_or(0.0) as u64
    }

    /// The epochs that are recorded so far.
    pub fn epochs(&self) -> usize {
        read(&self.path().join("metrics.jsonl")).lines().count()
    }

    /// What the workers with this local rank have logged so far.
    pub fn log(&self, local_rank: u32) -> String {
        read(&self.path().join(format!("logs/worker-{local_rank}.log")))
    }

    /// Sends a signal to the coordinator.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).expect("not reaped yet");
    }

    /// The process id of the coordinator.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The live workers, in the order of their local ranks.
    pub fn processes(&self) -> Vec<Process> {
        self.location.workers()
    }

    /// The process ids of the live workers, in the order of their local ranks.
    pub fn workers(&self) -> Vec<u32> {
        self.processes().iter().map(|worker| worker.pid).collect()
    }

    /// Lets a worker that the test starts count among [`Run::workers`].
    pub fn track(&self, worker: &mut Command) {
        worker.env(MARK, self.location.mark());
    }

    /// Whether the coordinator has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child of this process")
            .is_some()
    }

    /// Waits until `holds`; `what` names the condition in messages.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + self.timeout;
        while !holds(self) {
            assert!(
                !self.has_ended(),
                "the coordinator exited before {what}:\n{}",
                self.output()
            );
            assert!(
                Instant::now() < deadline,
                "timed out waiting for {what}:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the coordinator has exited.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                return Ended::new(status, self.output(), self.location.clone());
            }
            assert!(
                Instant::now() < deadline,
                "timed out waiting for the coordinator to exit:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.has_ended() {
            // Its workers exit by themselves, or wait for the next coordinator.
            return;
        }
        // Both fail only if it has exited meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.workers().into_iter().for_each(kill);
    }
}
