//! A run of the coordinator, from its start to its end.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::disk::Disk;
use crate::process::{MARK, Process, pid, workers_of};
use crate::{Ended, SMALL, coordinator, kill, metrics, read};

/// The longest that any one run may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A run of the coordinator in a run directory of its own.
#[derive(Debug)]
pub struct Run {
    child: Child,
    place: Place,
    patience: Duration,
}

/// Where a run has its directory and its output.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: Arc<tempfile::TempDir>,
    /// A file system of its own, mounted at `directory`.
    disk: Option<Arc<Disk>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        Self {
            directory: Arc::new(directory),
            disk: None,
        }
    }

    /// As the processes of the run see it.
    fn inside(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.inside().join("run"),
            None => self.directory.path().join("run"),
        }
    }

    /// As everybody else sees it.
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
            place: self,
            patience: PATIENCE,
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
    /// Starts a run with these arguments and a fresh run directory.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// The same, of a command that is `prepare`d first.
    pub fn start_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_at(Place::new(), arguments, prepare)
    }

    /// The same, with the run directory on `disk`.
    pub fn start_on(disk: Arc<Disk>, arguments: &[&str]) -> Self {
        let place = Place {
            disk: Some(disk),
            ..Place::new()
        };
        Self::start_at(place, arguments, |_| {})
    }

    fn start_at(place: Place, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = place.command();
        command.args(arguments).arg("--run-dir").arg(place.inside());
        prepare(&mut command);
        place.spawn(command)
    }

    /// A small run with `workers` workers and these further arguments.
    pub fn small(workers: usize, arguments: &[&str]) -> Self {
        let workers = format!("--workers={workers}");
        Self::start(&[&[workers.as_str()], SMALL, arguments].concat())
    }

    /// The same run, that may take as long as `patience`.
    pub fn patiently(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.place.run_dir()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        read(&self.place.output())
    }

    /// Where the run shows its metrics, once it does.
    pub fn metrics_address(&self) -> Option<String> {
        let output = self.output();
        let (_, rest) = output.split_once("metrics: http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    }

    /// Where workers join it, once it says so to people: with `--no-spawn`.
    pub fn join_address(&self) -> Option<String> {
        let output = self.output();
        let (_, rest) = output.split_once("worker --coordinator ")?;
        let url = rest.split(['`', '\n', ' ']).next()?;
        Some(url.to_owned())
    }

    /// Steps that all ranks have made so far, by the metrics.
    pub fn steps(&self) -> u64 {
        let steps = self.metrics_address().and_then(|address| {
            let scraped = metrics::get(&address, "/metrics").ok()?;
            metrics::value(&scraped, "finetune_steps_total")
        });
        steps.unwrap_or(0.0) as u64
    }

    /// Sends a signal to the coordinator.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).expect("it is not reaped");
    }

    /// The process id of the coordinator.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its live workers, in the order of their slots.
    pub fn processes(&self) -> Vec<Process> {
        self.place.workers()
    }

    /// The process ids of its live workers, in the order of their slots.
    pub fn workers(&self) -> Vec<u32> {
        self.processes().iter().map(|worker| worker.pid).collect()
    }

    /// The value by which a worker started by hand counts among [`Run::workers`].
    pub fn adopt(&self, worker: &mut Command) {
        worker.env(MARK, self.place.mark());
    }

    /// Whether the coordinator has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("it can be waited for")
            .is_some()
    }

    /// Waits until `holds` says so of the run.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + self.patience;
        while !holds(self) {
            assert!(!self.has_ended(), "ended before {what}:\n{}", self.output());
            assert!(
                Instant::now() < deadline,
                "no {what} in time:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return Ended::new(status, self.output(), self.place.clone());
            }
            assert!(
                Instant::now() < deadline,
                "did not end in time:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.has_ended() {
            // Its workers follow it by themselves, or hold their state for the next one.
            return;
        }
        // Both fail only when it has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.workers().into_iter().for_each(kill);
    }
}
