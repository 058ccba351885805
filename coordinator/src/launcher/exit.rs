//! How a worker ended, in words that help.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::Signal;

/// What the shell and the loader use for "could not be started".
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
    /// Whether it ended because [`super::Launcher::shutdown`] asked.
    pub asked_to_stop: bool,
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
    /// It ended itself.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The operating system would not say.
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
                    f.write_str("was killed by SIGKILL (often the system, for lack of memory)")
                }
                Some(Signal::BUS) => {
                    f.write_str("was killed by SIGBUS (often /dev/shm or the disk is full)")
                }
                Some(Signal::SEGV) => {
                    f.write_str("was killed by SIGSEGV (a defect in native code)")
                }
                Some(Signal::ABORT) => f.write_str("was killed by SIGABRT (native code gave up)"),
                Some(Signal::TERM) => f.write_str("was ended by SIGTERM"),
                Some(Signal::INT) => f.write_str("was ended by SIGINT"),
                _ => write!(f, "was killed by signal {number}"),
            },
            Self::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

impl WorkerExit {
    /// The shared library that the loader could not find, as its message names it. With glibc:
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
                "{library} is not found: the worker needs libtorch 2.11.0; `make setup` installs \
                 it, or set LD_LIBRARY_PATH to the lib folder of an installed one"
            )
        })
    }
}

impl fmt::Display for WorkerExit {
    /// One line; the log's lines stand in `log_head` and `log_tail`.
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
