//! How a worker process ended, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use coordinator_core::event::ProcessStatus;

/// The exit code by which the shell and the loader say "could not be started".
const NOT_STARTED: i32 = 127;

/// The exit code by which a packaged worker says that it has found no libtorch of its version. Its
/// log names the way out.
const NO_LIBTORCH: i32 = 8;

/// The end of a worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExit {
    /// Which worker of this machine it was.
    pub local_rank: u32,
    /// Its process id.
    pub pid: u32,
    /// Code or signal.
    pub status: ProcessStatus,
    /// It still ran when it was asked to end.
    pub stopped: bool,
    /// Its whole log.
    pub log_path: PathBuf,
    /// The first lines that it wrote.
    pub log_head: Vec<String>,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
}

impl WorkerExit {
    /// The shared library that the loader could not find, by the message of glibc:
    /// `worker: error while loading shared libraries: libtorch_cpu.so: cannot open shared …`.
    #[must_use]
    pub fn missing_library(&self) -> Option<&str> {
        if self.status != ProcessStatus::Code(NOT_STARTED) {
            return None;
        }
        self.log_head.iter().find_map(|line| {
            let (_, rest) = line.split_once("error while loading shared libraries: ")?;
            rest.split(':').next()
        })
    }

    /// Whether the machine lacks what every worker needs, so that another one would end alike.
    #[must_use]
    pub fn lacks_libtorch(&self) -> bool {
        self.status == ProcessStatus::Code(NO_LIBTORCH) || self.missing_library().is_some()
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
