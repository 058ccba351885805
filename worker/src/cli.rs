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

    /// The data folder on this machine, where it differs from the coordinator's
    #[arg(long, value_name = "DIR|demo", env = "FINETUNE_DATA")]
    pub data: Option<String>,

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
