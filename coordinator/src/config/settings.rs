//! Every setting once, as a flag and as a file key; all optional, so that layers can be told
//! apart. Holds no default: those stand in `resolve`, and the help texts here quote them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

const RUN: &str = "Run";
const DATA: &str = "Data";
const RECIPE: &str = "Model and recipe";
const COMPUTE: &str = "Where it computes";
const FAULTS: &str = "When something fails";
const SEEN: &str = "What others see";

/// One layer of settings: what one source says, and nothing where it is silent.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Worker processes that train together [default: 1]
    #[arg(long, value_name = "N", help_heading = RUN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,

    /// Wait for N workers that others start with `worker --coordinator URL`
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = RUN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_spawn: Option<bool>,

    /// Directory to create for the results [default: runs/TIME]
    #[arg(long, value_name = "DIR", help_heading = RUN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_dir: Option<PathBuf>,

    /// Seed of split, shuffles and random weights [default: 42]
    #[arg(long, value_name = "SEED", help_heading = RUN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,

    /// Folder in Caltech101's layout, or `demo` [default: data/caltech101 if there, else demo]
    #[arg(long, value_name = "DIR|demo", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,

    /// Height and width of the network's input in pixels [default: 224; demo: 48]
    #[arg(long, value_name = "PIXELS", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<u32>,

    /// Share of the pictures that validates instead of training [default: 0.2]
    #[arg(long, value_name = "SHARE", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_fraction: Option<f64>,

    /// Use at most K pictures of each class [default: all]
    #[arg(long, value_name = "K", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_per_class: Option<usize>,

    /// End the run at a picture that cannot be read, instead of skipping and counting it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_data: Option<bool>,

    /// Mebibytes a second that workers with `--data coordinator` may take together [default: 100]
    #[arg(long, value_name = "MIB", help_heading = DATA)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bandwidth: Option<u64>,

    /// Weights to start from: a .pth or .safetensors file, `auto` (data/weights/
    /// resnet18-f37072fd.pth if there) or `none` [default: auto]
    #[arg(long, value_name = "PATH|auto|none", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<String>,

    /// The most epochs [default: 15; demo: 8]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,

    /// Stop after N epochs without a better validation loss [default: 3]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,

    /// By how much the validation loss must fall to be better [default: 0]
    #[arg(long, value_name = "LOSS", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_delta: Option<f64>,

    /// Samples per step, over all workers together [default: 128; demo: 64]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_batch: Option<usize>,

    /// Learning rates: `auto` (notebook with pretrained weights, else scratch), `notebook`,
    /// `readme`, `scratch`, `uniform=LR`, or GROUP=LR,… over stem, layer1 to layer4 and fc,
    /// where groups left out keep auto's rate [default: auto]
    #[arg(long, value_name = "RATES", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_lr: Option<String>,

    /// How learning rates change over the epochs [default: constant; demo: cosine]
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_schedule: Option<LrSchedule>,

    /// Epochs between two steps of the step schedule [default: 5]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_step_epochs: Option<u32>,

    /// Factor of each step of the step schedule [default: 0.1]
    #[arg(long, value_name = "FACTOR", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_gamma: Option<f64>,

    /// Epochs over which the learning rates rise to their value [default: 0]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_epochs: Option<u32>,

    /// Adam's L2 penalty [default: 0]
    #[arg(long, value_name = "FACTOR", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,

    /// BatchNorm in training: statistics of each rank's own slice, or frozen [default: per-rank]
    #[arg(long, value_name = "KIND", help_heading = RECIPE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<BatchNorm>,

    /// Device of the workers; auto takes GPUs when there is one for each [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = COMPUTE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,

    /// Precision; auto is bf16 where the hardware computes in it [default: auto]
    #[arg(long, value_name = "KIND", help_heading = COMPUTE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,

    /// CPU threads of each worker [default: the processors divided among the workers]
    #[arg(long, value_name = "N", help_heading = COMPUTE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_per_worker: Option<usize>,

    /// The worker program [default: `worker` beside this executable]
    #[arg(long, value_name = "FILE", help_heading = COMPUTE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_binary: Option<PathBuf>,

    /// With fewer workers the run does not go on [default: 1]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_workers: Option<usize>,

    /// Up to so many workers may join while it runs [default: as --workers]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<usize>,

    /// How long to wait for the replacement of a lost worker before going on with fewer
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejoin_timeout: Option<u64>,

    /// How often in a row a local worker that makes no step is started again [default: 3]
    #[arg(long, value_name = "N", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,

    /// How long nothing may move before the rank that holds up the others is replaced
    /// [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout: Option<u64>,

    /// Checkpoints beside those after each epoch: `epoch` for none, every N steps, or every
    /// N seconds as `30s` [default: epoch]
    #[arg(long, value_name = "N|Ns|epoch", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<String>,

    /// How long workers keep their state and look for a coordinator that is gone [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_timeout: Option<u64>,

    /// How long a run that was asked to stop may take for its last checkpoint [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = FAULTS)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<u64>,

    /// The longest that one operation between the workers may take [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = COMPUTE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collective_timeout: Option<u64>,

    /// Address for the workers; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long, value_name = "IP:PORT", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,

    /// Certificate of the coordinator in PEM; with --tls-key and --tls-ca, workers have to show
    /// one of that authority. All three are read anew for each connection
    #[arg(long, value_name = "FILE", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert in PEM
    #[arg(long, value_name = "FILE", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,

    /// Authorities that sign the workers' certificates, in PEM
    #[arg(long, value_name = "FILE", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,

    /// File with a secret of 16 bytes or more that workers have to show
    #[arg(long, value_name = "FILE", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,

    /// Let whoever reaches --listen join the run, which else takes TLS or a token
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,

    /// Address of /metrics, /status, /healthz and /readyz [default: 127.0.0.1:9095, or a free
    /// port where that one is taken]
    #[arg(long, value_name = "IP:PORT", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,

    /// Time to serve /metrics after the end, so that each Prometheus reads the last values
    /// [default: 15 if /metrics was ever read, else 0]
    #[arg(long, value_name = "SECONDS", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_linger: Option<u64>,

    /// OpenTelemetry collector that takes traces by OTLP over gRPC, such as http://HOST:4317;
    /// workers send theirs there, too [default: none]
    #[arg(long, value_name = "URL", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,

    /// Form of the logs on stderr; RUST_LOG chooses how much [default: text]
    #[arg(long, value_name = "FORM", help_heading = SEEN)]
    #[serde(skip_serializing_if = "Option::is_none")]
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
        /// They stay
        Constant = "constant",
        /// Times lr-gamma every lr-step-epochs
        Step = "step",
        /// Along half a cosine towards 0
        Cosine = "cosine",
    }
}
choices! {
    /// How BatchNorm behaves in training.
    BatchNorm {
        /// Each rank normalises by its own slice
        PerRank = "per-rank",
        /// The running statistics normalise and stay as they are
        Frozen = "frozen",
    }
}
choices! {
    /// Where workers compute.
    Device {
        /// GPUs when there is one for each worker, else the CPU
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
        /// bf16 where the hardware computes in it, else fp32
        Auto = "auto",
        /// 32-bit floating point
        Fp32 = "fp32",
        /// 16-bit brain floating point by autocast
        Bf16 = "bf16",
    }
}
choices! {
    /// The form of the logs.
    LogFormat {
        /// Lines for people
        Text = "text",
        /// One JSON object a line
        Json = "json",
    }
}
