//! What a worker process is started with: its program, arguments, environment, log and standard
//! input. It starts one and does not watch it.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{LaunchError, LaunchSpec};

/// Variables that configure a worker started by hand. A launched worker must not inherit them.
const FOR_WORKERS_STARTED_BY_HAND: [&str; 9] = [
    "FINETUNE_DATA",
    "FINETUNE_PRETRAINED",
    "FINETUNE_COORDINATOR",
    "FINETUNE_TLS_CERT",
    "FINETUNE_TLS_KEY",
    "FINETUNE_TLS_CA",
    "FINETUNE_TLS_SERVER_NAME",
    "FINETUNE_TOKEN_FILE",
    "FINETUNE_GPU",
];

/// Variables by which a user chooses the address that workers announce to each other.
const ADDRESS_OF_A_WORKER: [&str; 3] = [
    "FINETUNE_ADVERTISE",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
];

/// A process that was just started.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) pid: u32,
    pub(super) log_path: PathBuf,
    /// Where this process's part of the log begins.
    pub(super) log_start: u64,
}

/// Starts the worker of `local_rank`. The log of that local rank continues.
///
/// # Errors
/// Its log cannot be created, or the operating system refuses.
pub(super) fn start(spec: &LaunchSpec, local_rank: u32) -> Result<Started, LaunchError> {
    let log_path = spec.logs.join(format!("worker-{local_rank}.log"));
    let refuse = |source| LaunchError::Log {
        path: log_path.clone(),
        source,
    };
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(refuse)?;
    let log_start = log.metadata().map_err(refuse)?.len();

    let mut command = Command::new(&spec.binary);
    command
        .args(["--coordinator", &spec.coordinator_url])
        .stdin(Stdio::piped())
        .stdout(log.try_clone().map_err(refuse)?)
        .stderr(log)
        // A group of its own: Ctrl-C on the terminal reaches the coordinator alone, which then
        // stops the workers at a step boundary.
        .process_group(0)
        .kill_on_drop(true);
    environment(spec, local_rank, &mut command);
    let child = command.spawn().map_err(|source| LaunchError::Spawn {
        path: spec.binary.clone(),
        source,
    })?;
    // A child that was not awaited yet has its id.
    let pid = child.id().unwrap_or_default();
    Ok(Started {
        child,
        pid,
        log_path,
        log_start,
    })
}

fn environment(spec: &LaunchSpec, local_rank: u32, command: &mut Command) {
    for variable in FOR_WORKERS_STARTED_BY_HAND {
        command.env_remove(variable);
    }
    command.env(proto::LOCAL_RANK_VARIABLE, local_rank.to_string());
    command.env("FINETUNE_LOG_FORMAT", spec.log_format.word());
    command.env(
        "CUDA_VISIBLE_DEVICES",
        spec.placement.visible_to(local_rank),
    );
    let chosen = ADDRESS_OF_A_WORKER
        .iter()
        .any(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    if let (Some(ip), false) = (spec.advertise, chosen) {
        command.env("FINETUNE_ADVERTISE", ip.to_string());
    }
}
