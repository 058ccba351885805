//! How a worker can end otherwise than with its run; `main` gives each an exit code.

/// How a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Flags or files that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("no coordinator at {url} within {seconds} s: {cause}")]
    Unreachable {
        /// The address as given.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The last attempt's words.
        cause: String,
    },
    /// The coordinator turned the worker away.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The session broke.
    #[error("the session with the coordinator broke: {0}")]
    Broken(String),
    /// Training failed; the coordinator was told.
    #[error("{0}")]
    Training(String),
}
