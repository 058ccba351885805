//! Starts the real binaries, waits for what they say, and leaves no process behind.

#![allow(clippy::expect_used, reason = "a test harness fails by panicking")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// The longest that any one run may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A run of the coordinator in a run directory of its own.
#[derive(Debug)]
pub struct Run {
    child: Child,
    directory: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Everything it printed, stdout first.
    pub output: String,
    directory: tempfile::TempDir,
}

/// The settings of a run that takes seconds: few small demo images, and nothing whose result
/// depends on how the samples lie on the ranks.
pub const SMALL: &[&str] = &[
    "--data=demo",
    "--limit-per-class=12",
    "--image-size=32",
    "--global-batch=16",
    "--precision=fp32",
    "--batch-norm=frozen",
    "--device=cpu",
    "--threads-per-worker=1",
    "--layer-lr=uniform=1e-3",
    "--metrics-listen=127.0.0.1:0",
    "--metrics-linger=0",
];

/// A binary of this workspace, from the profile that this test was built in.
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has an executable");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join(name);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --workspace` makes it",
        path.display()
    );
    path
}

/// Where tests run, so that they share one demo set.
pub fn scratch() -> PathBuf {
    let mut path = binary("coordinator");
    path.pop();
    path.pop();
    let path = path.join("tmp").join("integration");
    std::fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

/// A coordinator command without any argument, unaffected by the caller's environment.
pub fn coordinator() -> Command {
    let mut command = Command::new(binary("coordinator"));
    command.current_dir(scratch()).stdin(Stdio::null());
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("FINETUNE_")) {
        command.env_remove(variable);
    }
    command
}

impl Run {
    /// Starts a run with these arguments and a fresh run directory.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let output = std::fs::File::create(directory.path().join("output")).expect("a file");
        let child = coordinator()
            .args(arguments)
            .arg("--run-dir")
            .arg(directory.path().join("run"))
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the coordinator starts");
        Self { child, directory }
    }

    /// A small run with `workers` workers and these further arguments.
    pub fn small(workers: usize, arguments: &[&str]) -> Self {
        let workers = format!("--workers={workers}");
        Self::start(&[&[workers.as_str()], SMALL, arguments].concat())
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        read(&self.directory.path().join("output"))
    }

    /// Steps that all ranks have made so far, by the metrics.
    pub fn steps(&self) -> u64 {
        let output = self.output();
        let Some(address) = output
            .split("metrics: http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
        else {
            return 0;
        };
        let scraped = scrape(address).unwrap_or_default();
        let value = scraped
            .lines()
            .find_map(|line| line.strip_prefix("finetune_steps_total "));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Sends a signal to the coordinator.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.child.id()), signal).expect("it is running");
    }

    /// The process ids of its workers.
    pub fn workers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let direct = read(Path::new(&path));
        let mut found: Vec<u32> = direct
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect();
        // Children belong to the thread that started them.
        if let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) {
            for task in tasks.flatten() {
                let children = read(&task.path().join("children"));
                found.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Waits until `holds` says so of the run.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let ended = self.child.try_wait().expect("it can be waited for");
            assert!(
                ended.is_none(),
                "ended ({ended:?}) before {what}:\n{}",
                self.output()
            );
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                let output = self.output();
                let directory = std::mem::replace(
                    &mut self.directory,
                    tempfile::tempdir().expect("a temporary folder"),
                );
                return Ended {
                    code: status.code().unwrap_or(-1),
                    output,
                    directory,
                };
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
        // Both fail only when it has ended; its workers follow it by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Starts a coordinator that goes on with this run.
    pub fn resume(self, arguments: &[&str]) -> Run {
        let output = std::fs::File::create(self.directory.path().join("output")).expect("a file");
        let child = coordinator()
            .arg("--resume")
            .arg(self.path())
            .args(arguments)
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the coordinator starts");
        Run {
            child,
            directory: self.directory,
        }
    }

    /// The run directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Checks that the run succeeded.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.output);
        self
    }

    /// The lines of `metrics.jsonl`.
    pub fn epochs(&self) -> Vec<Value> {
        read(&self.path().join("metrics.jsonl"))
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// One number of every epoch.
    pub fn column(&self, key: &str) -> Vec<f64> {
        self.epochs()
            .iter()
            .map(|epoch| epoch[key].as_f64().expect("a number"))
            .collect()
    }

    /// All values of the floating-point tensors of `best.safetensors`, by name.
    pub fn weights(&self) -> Vec<(String, Vec<f32>)> {
        let bytes = std::fs::read(self.path().join("best.safetensors")).expect("the best weights");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
        let mut tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32)
            .map(|(name, tensor)| {
                let values = tensor.data().chunks_exact(4);
                let values = values
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect();
                (name, values)
            })
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    let status = read(Path::new(&format!("/proc/{pid}/stat")));
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

/// Sends SIGKILL.
pub fn kill(process: u32) {
    rustix::process::kill_process(pid(process), Signal::KILL).expect("it is running");
}

/// Sends SIGSTOP.
pub fn pause(process: u32) {
    rustix::process::kill_process(pid(process), Signal::STOP).expect("it is running");
}

/// What a metrics address serves.
fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw as i32).expect("not 0")
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let _ = file.read_to_string(&mut text);
    }
    text
}
