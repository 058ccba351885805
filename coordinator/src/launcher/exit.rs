//! How a worker process ended, and what to do about it.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::Signal;

/// The exit code by which the shell and the loader say "could not be started".
const NOT_STARTED: i32 = 127;

/// The end of a worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExit {
    /// Which worker of this machine it was.
    pub local_rank: usize,
    /// Its process id.
    pub pid: u32,
    /// Code or signal.
    pub status: WorkerStatus,
    /// Its whole log.
    pub log_path: PathBuf,
    /// The first lines that it wrote.
    pub log_head: Vec<String>,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStatus {
    /// It exited by itself.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The operating system did not report it.
    Unknown,
}

impl From<ExitStatus> for WorkerStatus {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(0) => f.write_str("ended without an error"),
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(number) => match Signal::from_named_raw(number) {
                Some(Signal::KILL) => {
                    f.write_str("was killed by SIGKILL (often by the system, for lack of memory)")
                }
                Some(Signal::BUS) => {
                    f.write_str("was killed by SIGBUS (often /dev/shm or the disk is full)")
                }
                Some(Signal::SEGV) => {
                    f.write_str("was killed by SIGSEGV (a defect in native code)")
                }
                Some(Signal::ABORT) => f.write_str("was killed by SIGABRT (native code aborted)"),
                Some(Signal::TERM) => f.write_str("was ended by SIGTERM"),
                Some(Signal::INT) => f.write_str("was ended by SIGINT"),
                _ => write!(f, "was killed by signal {number}"),
            },
            Self::Unknown => f.write_str("ended; the system did not report how"),
        }
    }
}

impl WorkerExit {
    /// The shared library that the loader could not find, by the message of glibc:
    /// `worker: error while loading shared libraries: libtorch_cpu.so: cannot open shared …`.
    #[must_use]
    pub fn missing_library(&self) -> Option<&str> {
        if self.status != WorkerStatus::Code(NOT_STARTED) {
            return None;
        }
        self.log_head.iter().find_map(|line| {
            let (_, rest) = line.split_once("error while loading shared libraries: ")?;
            rest.split(':').next()
        })
    }

    /// The cause and the way out, where the cause is a known one.
    #[must_use]
    pub fn explanation(&self) -> Option<String> {
        self.missing_library().map(|library| {
            format!(
                "{library} was not found: the worker needs libtorch 2.11.0; `make setup` installs \
                 it, or set LD_LIBRARY_PATH to the lib folder of an installed one"
            )
        })
    }
}

impl fmt::Display for WorkerExit {
    /// One line; the lines of the log are in `log_head` and `log_tail`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "worker {} (process {}) {}",
            self.local_rank, self.pid, self.status
        )?;
        match self.explanation() {
            Some(explanation) => write!(f, ": {explanation}"),
            None => write!(f, "; its log is {}", self.log_path.display()),
        }
    }
}
