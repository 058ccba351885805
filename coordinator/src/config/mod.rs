//! The settings of a run, from defaults, file, environment and flags. It decides what they leave
//! open, and says so. Reads the configuration file and looks whether the usual
//! data and weights are there; it writes nothing.

mod checkpoint_every;
mod error;
pub mod exposure;
pub mod layer_lr;
mod resolve;
mod settings;
mod sources;
mod validate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::tls::TlsFiles;
use coordinator_core::run::Cadence;
use coordinator_core::schedule::GroupLrs;

pub use error::ConfigError;
pub(crate) use resolve::DEFAULT_METRICS_LISTEN;
pub use settings::{BatchNorm, Device, LogFormat, LrSchedule, Precision, Settings};
pub use sources::Sources;

/// Where the default data set lies once `coordinator fetch caltech101` has run.
pub const DEFAULT_DATA: &str = "data/caltech101";
/// Where the default weights lie once `coordinator fetch weights` has run.
pub const DEFAULT_WEIGHTS: &str = "data/weights/resnet18-f37072fd.pth";
/// The parent of run directories that no source names.
pub const DEFAULT_RUNS: &str = "runs";

/// Where the images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// The built-in set of drawn images.
    Demo,
    /// A folder in the layout of Caltech101.
    Directory(PathBuf),
}

/// The effective settings of a run: nothing in it is "auto" but what only a worker can know.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Worker processes, which is the world size; at least 1.
    pub workers: usize,
    /// Wait for workers that are started elsewhere instead of starting them.
    pub no_spawn: bool,
    /// Where the images come from.
    pub data: DataSource,
    /// Weights to start from; `None` starts from random ones.
    pub pretrained: Option<PathBuf>,
    /// The most epochs.
    pub epochs: u32,
    /// Epochs without improvement of the validation loss before the run stops.
    pub patience: u32,
    /// By how much the validation loss must fall to count as an improvement.
    pub min_delta: f64,
    /// Samples per step over all ranks.
    pub global_batch: usize,
    /// Height and width of the network's input in pixels.
    pub image_size: u32,
    /// Share of the images that validates instead of training, in (0, 1).
    pub validation_fraction: f64,
    /// At most this many images of each class.
    pub limit_per_class: Option<usize>,
    /// The base learning rate of each parameter group.
    pub layer_lr: GroupLrs,
    /// How the learning rates change over the epochs.
    pub lr_schedule: LrSchedule,
    /// Epochs between two steps of the `step` schedule.
    pub lr_step_epochs: u32,
    /// Factor of one step of the `step` schedule, in (0, 1].
    pub lr_gamma: f64,
    /// Epochs over which the learning rates rise to their base value.
    pub warmup_epochs: u32,
    /// Adam's L2 penalty.
    pub weight_decay: f64,
    /// How BatchNorm behaves in training.
    pub batch_norm: BatchNorm,
    /// Where workers compute.
    pub device: Device,
    /// In which precision workers compute.
    pub precision: Precision,
    /// CPU threads of each worker; those of a machine share its processors if `None`.
    pub threads_per_worker: Option<u32>,
    /// Seed of the split, the shuffles and the random weights.
    pub seed: u64,
    /// The directory that the run creates and fills.
    pub run_dir: PathBuf,
    /// Where workers connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate of the coordinator, in PEM; all three TLS files are given or none.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    pub tls_key: Option<PathBuf>,
    /// The authorities whose certificates workers show, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// The file of the token that workers send.
    pub token_file: Option<PathBuf>,
    /// Every process that reaches `listen` may join.
    pub insecure: bool,
    /// Where `/metrics` and `/status` are served; port 0 takes a free one.
    pub metrics_listen: SocketAddr,
    /// Whether a source gives `metrics_listen`. If none does, a free port may replace a taken one.
    pub metrics_listen_asked: bool,
    /// The longest wait after the end for one more scrape; `None` waits only if `/metrics` was read.
    pub metrics_linger: Option<Duration>,
    /// An image that cannot be read ends the run instead of being skipped.
    pub strict_data: bool,
    /// Bytes a second that workers without data of their own may take together.
    pub data_bandwidth: u64,
    /// The worker program; `None` takes the one beside this executable.
    pub worker_binary: Option<PathBuf>,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
    /// The form of the logs on stderr.
    pub log_format: LogFormat,
    /// With fewer workers the run ends.
    pub min_workers: usize,
    /// The most workers that may join.
    pub max_workers: usize,
    /// How long a lost worker's replacement may take.
    pub rejoin_timeout: Duration,
    /// Restarts in a row of a local worker that makes no step.
    pub max_restarts: u32,
    /// Time without progress before the stalled rank is replaced.
    pub stall_timeout: Duration,
    /// When a checkpoint is taken, beside the one after each epoch.
    pub checkpoint_every: Cadence,
    /// How long workers keep their state and look for a coordinator that is gone.
    pub hold_timeout: Duration,
    /// How long a run that was asked to stop may take for its last checkpoint.
    pub grace: Duration,
    /// The longest that a collective operation may take.
    pub collective_timeout: Duration,
    /// All but the run directory, which belongs to one run only, as one layer of settings.
    saved: Settings,
}

/// A configuration together with what the user should be told about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective settings, validated.
    pub config: RunConfig,
    /// Decisions that were left to the program, one line each.
    pub notes: Vec<String>,
}

impl RunConfig {
    /// Merges the sources, decides what they leave open, and validates the result.
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown, a value has the wrong form, or settings
    /// contradict each other; see [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let (settings, notes) = sources::merge(sources)?;
        let mut loaded = resolve::resolve(settings, &sources.root)?;
        loaded.notes.splice(0..0, notes);
        loaded.config.validate()?;
        Ok(loaded)
    }

    /// The files of mutual TLS, when all are given.
    #[must_use]
    pub fn tls_files(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            cert: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            ca: self.tls_ca.clone()?,
        })
    }

    /// The effective settings as a file that `--config` takes. The run directory is only a
    /// comment, because the repetition needs one of its own.
    ///
    /// # Errors
    /// A path is not valid UTF-8 and so cannot stand in TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let body = toml::to_string(&self.saved)
            .map_err(|error| ConfigError::Unwritable(error.to_string()))?;
        Ok(format!(
            "# The effective settings of the run in {:?}.\n\
             # `coordinator --config THIS_FILE` repeats it.\n\n{body}",
            self.run_dir.display().to_string()
        ))
    }
}

impl DataSource {
    /// `demo`, or the folder.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Demo => "demo".to_owned(),
            Self::Directory(path) => path.display().to_string(),
        }
    }
}

fn exists(root: &Path, path: &str) -> bool {
    root.join(path).exists()
}

#[cfg(test)]
mod tests;
