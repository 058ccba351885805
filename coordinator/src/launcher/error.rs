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
