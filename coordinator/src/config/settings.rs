//! Every setting once, as a flag and as a file key; all optional, so that layers can be told
//! apart. It holds no default: those are in `resolve`, and the help texts here quote them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

const RUN: &str = "Run";
const DATA: &str = "Data";
const RECIPE: &str = "Model and recipe";
const COMPUTE: &str = "Compute";
const FAULTS: &str = "Fault tolerance";
const NETWORK: &str = "Network and observability";

/// One layer of settings: the values that one source gives.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Worker processes that train together [default: 1]
    #[arg(long, value_name = "N", help_heading = RUN)]
    pub workers: Option<usize>,

    /// Start no workers; wait for N that are started elsewhere with `worker --coordinator URL`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = RUN)]
    pub no_spawn: Option<bool>,

    /// Directory to create for the results [default: runs/TIME]
    #[arg(long, value_name = "DIR", help_heading = RUN)]
    pub run_dir: Option<PathBuf>,

    /// Seed of the split, the shuffles and random initial weights [default: 42]
    #[arg(long, value_name = "SEED", help_heading = RUN)]
    pub seed: Option<u64>,

    /// Folder with one sub-folder of pictures per class (.jpg .jpeg .png .webp .tif .tiff .bmp .gif
    /// .ppm .pgm, at any depth, EXIF orientation ignored), or `demo` for the built-in set
    /// [default: data/caltech101 if it exists, else demo]
    #[arg(long, value_name = "DIR|demo", help_heading = DATA)]
    pub data: Option<String>,

    /// Height and width of the network's input, in pixels [default: 224; demo: 48]
    #[arg(long, value_name = "PIXELS", help_heading = DATA)]
    pub image_size: Option<u32>,

    /// Share of the images used for validation, between 0 and 1 [default: 0.2]
    #[arg(long, value_name = "SHARE", help_heading = DATA)]
    pub validation_fraction: Option<f64>,

    /// Use at most K images of each class [default: all]
    #[arg(long, value_name = "K", help_heading = DATA)]
    pub limit_per_class: Option<usize>,

    /// End the run at an image that cannot be decoded, instead of skipping and counting it
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = DATA)]
    pub strict_data: Option<bool>,

    /// Bandwidth that all workers with `--data coordinator` share, in MiB a second [default: 100]
    #[arg(long, value_name = "MIB", help_heading = DATA)]
    pub data_bandwidth: Option<u64>,

    /// Initial weights: a .safetensors or .pth file (FILE#KEY for one of several state dicts), `none`
    /// for random ones, or `auto` for data/weights/resnet18-f37072fd.pth if it exists, else random
    /// ones [default: auto]
    #[arg(long, value_name = "PATH|auto|none", help_heading = RECIPE)]
    pub pretrained: Option<String>,

    /// Train at most N epochs [default: 15; demo: 8]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub epochs: Option<u32>,

    /// Stop after N epochs in a row without a better validation loss [default: 3]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub patience: Option<u32>,

    /// Count a validation loss as better only if it is lower by more than this [default: 0]
    #[arg(long, value_name = "LOSS", help_heading = RECIPE)]
    pub min_delta: Option<f64>,

    /// Samples per step over all workers [default: 128; demo: 64]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub global_batch: Option<usize>,

    /// Learning rate of each parameter group: a preset (`notebook`, `readme`, `scratch`), one for
    /// all (`uniform=LR`), or a list (`fc=1e-3,layer4=1e-4`). The groups are stem, layer1 to
    /// layer4 and fc. `auto` is notebook with pretrained weights, else scratch; groups that a
    /// list leaves out keep it [default: auto]
    #[arg(long, value_name = "LRS", help_heading = RECIPE)]
    pub layer_lr: Option<String>,

    /// How learning rates change over the epochs [default: constant; demo: cosine]
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    pub lr_schedule: Option<LrSchedule>,

    /// Epochs between two steps of the step schedule [default: 5]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub lr_step_epochs: Option<u32>,

    /// Factor of each step of the step schedule, above 0 and at most 1 [default: 0.1]
    #[arg(long, value_name = "FACTOR", help_heading = RECIPE)]
    pub lr_gamma: Option<f64>,

    /// Raise the learning rates linearly over the first N epochs [default: 0]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub warmup_epochs: Option<u32>,

    /// L2 penalty of Adam [default: 0]
    #[arg(long, value_name = "FACTOR", help_heading = RECIPE)]
    pub weight_decay: Option<f64>,

    /// Statistics of BatchNorm in training: those of the samples of each rank, or frozen ones
    /// [default: per-rank]
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    pub batch_norm: Option<BatchNorm>,

    /// Device of the workers; auto uses GPUs if there is one for each worker [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = COMPUTE)]
    pub device: Option<Device>,

    /// Precision of the forward and backward passes; auto is bf16 on hardware with native bf16
    /// [default: auto]
    #[arg(long, value_name = "KIND", help_heading = COMPUTE)]
    pub precision: Option<Precision>,

    /// CPU threads of each worker [default: the workers of a machine share its processors]
    #[arg(long, value_name = "N", help_heading = COMPUTE)]
    pub threads_per_worker: Option<u32>,

    /// The worker executable [default: `worker` beside this executable]
    #[arg(long, value_name = "FILE", help_heading = COMPUTE)]
    pub worker_binary: Option<PathBuf>,

    /// End the run when fewer than N workers are left and no replacement comes [default: 1]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    pub min_workers: Option<usize>,

    /// Let up to N workers join while the run is in progress [default: the value of --workers]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    pub max_workers: Option<usize>,

    /// Time to wait for the replacement of a lost worker before training continues with fewer, in
    /// seconds [default: 30]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    pub rejoin_timeout: Option<u64>,

    /// Restart a local worker at most N times in a row without a step [default: 3]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    pub max_restarts: Option<u32>,

    /// Time without progress before the stalled rank is replaced, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    pub stall_timeout: Option<u64>,

    /// Additional checkpoints between those at the end of each epoch: every N steps (`50`), every
    /// N seconds (`30s`), or none (`epoch`) [default: epoch]
    #[arg(long, value_name = "N|Ns|epoch", help_heading = FAULTS)]
    pub checkpoint_every: Option<String>,

    /// Time that workers keep their state and try to reach a lost coordinator, in seconds
    /// [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    pub hold_timeout: Option<u64>,

    /// Time for the last checkpoint of a run that was asked to stop, in seconds [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    pub grace: Option<u64>,

    /// Timeout of one collective operation between the workers, in seconds; shorter than
    /// --stall-timeout [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = COMPUTE)]
    pub collective_timeout: Option<u64>,

    /// Address for workers that are started elsewhere; port 0 takes a free port
    /// [default: 127.0.0.1:0]
    #[arg(long, value_name = "IP:PORT", help_heading = NETWORK)]
    pub listen: Option<SocketAddr>,

    /// Certificate of the coordinator, in PEM. With it, --tls-key and --tls-ca, workers must
    /// present a certificate that --tls-ca signed. All three files are read again for each
    /// connection [default: none]
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in PEM [default: none]
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub tls_key: Option<PathBuf>,

    /// Authorities that sign the certificates of the workers, in PEM [default: none]
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub tls_ca: Option<PathBuf>,

    /// File with a join token of 16 bytes or more that workers must send; those that this
    /// coordinator starts need none [default: none]
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub token_file: Option<PathBuf>,

    /// Let every process that reaches --listen join, without TLS and token [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = NETWORK)]
    pub insecure: Option<bool>,

    /// Address of the page, /metrics, /status, /healthz and /readyz [default: 127.0.0.1:9095, or a
    /// free port if that one is taken]
    #[arg(long, value_name = "IP:PORT", help_heading = NETWORK)]
    pub metrics_listen: Option<SocketAddr>,

    /// Time to serve the page and /metrics after a completed run, so that each Prometheus reads the
    /// last values; after any other end at most 15 [default: 15 if /metrics was ever read, else 0]
    #[arg(long, value_name = "SECONDS", help_heading = NETWORK)]
    pub metrics_linger: Option<u64>,

    /// OpenTelemetry collector for the traces of coordinator and workers, by OTLP over gRPC, such
    /// as http://HOST:4317 [default: none]
    #[arg(long, value_name = "URL", help_heading = NETWORK)]
    pub otlp_endpoint: Option<String>,

    /// Format of the logs on stderr; RUST_LOG sets their level [default: text]
    #[arg(long, value_name = "FORM", help_heading = NETWORK)]
    pub log_format: Option<LogFormat>,
}

macro_rules! choices {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// The word that flags and files use.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl From<$name> for &'static str {
            fn from(choice: $name) -> Self {
                choice.word()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(word: String) -> Result<Self, String> {
                match word.as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{word}` is none of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

choices! {
    /// How the learning rates change over the epochs.
    LrSchedule {
        /// They do not change
        Constant = "constant",
        /// Multiplied by --lr-gamma every --lr-step-epochs epochs
        Step = "step",
        /// Decay to 0 along half a cosine
        Cosine = "cosine",
    }
}
choices! {
    /// How BatchNorm behaves in training.
    BatchNorm {
        /// Each rank normalises by the statistics of its own samples
        PerRank = "per-rank",
        /// The running statistics normalise and do not change
        Frozen = "frozen",
    }
}
choices! {
    /// Where workers compute.
    Device {
        /// GPUs if there is one for each worker, else the CPU
        Auto = "auto",
        /// The CPU
        Cpu = "cpu",
        /// One GPU for each worker
        Cuda = "cuda",
    }
}
choices! {
    /// In which precision workers compute.
    Precision {
        /// bf16 on hardware with native bf16, else fp32
        Auto = "auto",
        /// 32-bit floating point; convolutions on a GPU may round to TF32, as in PyTorch
        Fp32 = "fp32",
        /// 16-bit brain floating point by autocast
        Bf16 = "bf16",
    }
}
choices! {
    /// The format of the logs.
    LogFormat {
        /// Plain lines
        Text = "text",
        /// One JSON object per line
        Json = "json",
    }
}
