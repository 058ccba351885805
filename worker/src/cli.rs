//! The flags of `worker`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Trains as one rank of a run. Everything about the run itself comes from the coordinator.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  worker --coordinator http://10.0.0.1:4500 --data /data/caltech101\n\nExit codes:\n    0  the run ended (without --stay), or the worker was asked to leave\n    1  failed; the coordinator reports the reason\n    2  a flag or configuration value is wrong\n    8  libtorch is missing, or has another version\n   12  the coordinator cannot be reached"
)]
pub struct Cli {
    /// Address of the coordinator: http://HOST:PORT or https://HOST:PORT, as the coordinator prints
    /// it, or unix:///RUN_DIR/workers.sock on the same machine
    #[arg(long, value_name = "URL", env = "FINETUNE_COORDINATOR")]
    pub coordinator: String,

    /// Certificate of this worker, in PEM. It, --tls-key and --tls-ca are read again for each
    /// connection
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in PEM
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Authorities that sign the certificate of the coordinator, in PEM
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// Name in the certificate of the coordinator [default: the host of --coordinator]
    #[arg(long, value_name = "NAME", env = "FINETUNE_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,

    /// File with the join token of the coordinator's --token-file
    #[arg(long, value_name = "FILE", env = "FINETUNE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Data folder on this machine; `coordinator` downloads the images from the coordinator
    /// [default: the path of the coordinator's --data]
    #[arg(long, value_name = "DIR|demo|coordinator", env = "FINETUNE_DATA")]
    pub data: Option<String>,

    /// Directory for downloaded images and the demo set
    #[arg(
        long,
        value_name = "DIR",
        default_value = "data",
        env = "FINETUNE_CACHE_DIR"
    )]
    pub cache_dir: PathBuf,

    /// Name or address by which other workers reach this machine; NCCL uses its interface
    /// [default: the address of GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, else the one on the
    /// route to the coordinator]
    #[arg(long, value_name = "HOST", env = "FINETUNE_ADVERTISE")]
    pub advertise: Option<String>,

    /// GPU of this worker: an index among those that CUDA_VISIBLE_DEVICES leaves, or a UUID as
    /// `nvidia-smi -L` prints it [default: the first]
    #[arg(long, value_name = "N|UUID", env = "FINETUNE_GPU")]
    pub gpu: Option<String>,

    /// File in which this worker writes its state every second, for health checks
    #[arg(long, value_name = "FILE", env = "FINETUNE_HEALTH_FILE")]
    pub health_file: Option<PathBuf>,

    /// Pretrained weights on this machine [default: the path of the coordinator's --pretrained]
    #[arg(long, value_name = "PATH", env = "FINETUNE_PRETRAINED")]
    pub pretrained: Option<PathBuf>,

    /// Format of the logs on stderr; RUST_LOG sets their level
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "FINETUNE_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// Time to try to reach the coordinator, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub connect_timeout: u32,

    /// When the run is over or its coordinator is stopped, wait for the next run instead of exiting
    #[arg(long)]
    pub stay: bool,
}

/// Format of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain lines.
    Text,
    /// One JSON object per line.
    Json,
}
