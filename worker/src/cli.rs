//! The flags of `worker`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Trains as one rank of a run. Everything about the run itself comes from the coordinator.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  worker --coordinator http://10.0.0.1:4500 --data /data/caltech101\n\nExit codes: 0 done, 1 failed (the coordinator says why), 2 wrong usage, 3 the coordinator cannot be reached"
)]
pub struct Cli {
    /// Where the coordinator listens: http://HOST:PORT or https://HOST:PORT, as it prints it
    #[arg(long, value_name = "URL", env = "FINETUNE_COORDINATOR")]
    pub coordinator: String,

    /// Certificate of this worker in PEM; it and the next two are read anew for each connection
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert in PEM
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Authorities that sign the coordinator's certificate, in PEM
    #[arg(long, value_name = "FILE", env = "FINETUNE_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// Name in the coordinator's certificate [default: the host of --coordinator]
    #[arg(long, value_name = "NAME", env = "FINETUNE_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,

    /// File with the secret that the coordinator's --token-file holds
    #[arg(long, value_name = "FILE", env = "FINETUNE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// The data folder on this machine, where it differs from the coordinator's; `coordinator`
    /// gets the images from there
    #[arg(long, value_name = "DIR|demo|coordinator", env = "FINETUNE_DATA")]
    pub data: Option<String>,

    /// Where images from the coordinator, and the demo set, are kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = "data",
        env = "FINETUNE_CACHE_DIR"
    )]
    pub cache_dir: PathBuf,

    /// Name or address of this machine by which other workers reach it [default: that of
    /// GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, else that on the way to the coordinator]
    #[arg(long, value_name = "HOST", env = "FINETUNE_ADVERTISE")]
    pub advertise: Option<String>,

    /// File that says every second what this worker is at, for health checks
    #[arg(long, value_name = "FILE", env = "FINETUNE_HEALTH_FILE")]
    pub health_file: Option<PathBuf>,

    /// Pretrained weights on this machine, where the path differs from the coordinator's
    #[arg(long, value_name = "PATH", env = "FINETUNE_PRETRAINED")]
    pub pretrained: Option<PathBuf>,

    /// Form of the logs on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "FINETUNE_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// Seconds to keep trying to reach the coordinator
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub connect_timeout: u64,
}

/// Form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// Lines for machines.
    Json,
}
