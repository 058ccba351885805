//! Why a worker process cannot be started.

use std::path::PathBuf;

/// A worker that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no worker program.
    #[error(
        "the worker program {path} does not exist or is not executable; build it with `cargo build --release` or name another with --worker-binary"
    )]
    NoBinary {
        /// The path that was checked.
        path: PathBuf,
    },
    /// `device = cuda`, where each worker needs a GPU of its own.
    #[error(
        "{workers} workers need {workers} GPUs but {gpus} visible; use fewer --workers, or --device cpu",
        gpus = are_visible(*.gpus)
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

/// What precedes "visible".
pub(super) fn are_visible(count: usize) -> String {
    match count {
        0 => "none is".to_owned(),
        1 => "1 is".to_owned(),
        many => format!("{many} are"),
    }
}
