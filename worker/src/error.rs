//! Why a worker ends before its run does; `main` gives each error an exit code.

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Flags or files that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// No coordinator answers.
    #[error("no coordinator at {url} within {seconds} s: {cause}")]
    Unreachable {
        /// The address as given.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The error of the last attempt.
        cause: String,
    },
    /// The coordinator refused the worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The session broke.
    #[error("the session with the coordinator broke: {0}")]
    Broken(String),
    /// Training failed, which was reported to the coordinator.
    #[error("{0}")]
    Training(String),
}
