//! Finds out what a worker trains with: where its images are, where its peers reach it, and what
//! is wrong with its machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::manifest::Manifest;
use proto::v1;

use crate::agent::connect::{self, Client, Coordinator};
use crate::agent::preflight::Facts;
use crate::agent::{address, convert};
use crate::cli::Cli;
use crate::error::AgentError;
use crate::trainer::setup::{Images, Setup};

/// The value of `--data` for images from the coordinator.
const FROM_COORDINATOR: &str = "coordinator";

/// The setup of a worker, and what the agent needs beside it.
pub(super) struct Prepared {
    pub(super) setup: Setup,
    /// What is wrong with this machine.
    pub(super) warnings: Vec<String>,
    /// How long the worker tries to reach a lost coordinator.
    pub(super) hold_timeout: Duration,
    /// Where traces go; empty for nowhere.
    pub(super) otlp_endpoint: String,
}

/// Prepares the setup.
///
/// # Errors
/// A flag names something that does not exist, or the coordinator does not send its list of images.
pub(super) async fn prepare(
    cli: &Cli,
    coordinator: &Coordinator,
    client: &Client,
    registered: &v1::Registered,
) -> Result<Prepared, AgentError> {
    let mut sent = registered.settings.clone().unwrap_or_default();
    if let Some(path) = &cli.pretrained {
        sent.pretrained = Some(path.to_string_lossy().into_owned());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock_ahead = now.map_or(0.0, |now| now.as_secs_f64() - registered.unix_seconds);
    let warnings = Facts::gather(&sent.device, clock_ahead).warnings();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let address = address::announced(cli.advertise.as_deref(), coordinator)
        .await
        .map_err(AgentError::Usage)?;
    let data = cli.data.as_deref().unwrap_or(&sent.data);
    let images = match (data, sent.data.as_str()) {
        ("demo", _) | (FROM_COORDINATOR, "demo") => Images::Demo(cli.cache_dir.join("demo")),
        (FROM_COORDINATOR, _) => Images::Coordinator(list(cli, client, registered).await?),
        (folder, _) => Images::Folder(folder.into()),
    };
    Ok(Prepared {
        hold_timeout: Duration::from_secs(sent.hold_timeout_seconds.into()),
        otlp_endpoint: sent.otlp_endpoint.clone(),
        setup: Setup {
            settings: convert::settings(sent).map_err(AgentError::Refused)?,
            images,
            address,
        },
        warnings,
    })
}

async fn list(
    cli: &Cli,
    client: &Client,
    registered: &v1::Registered,
) -> Result<Manifest, AgentError> {
    let worker_id = registered.worker_id;
    let listed = client
        .clone()
        .list_images(v1::ListImagesRequest { worker_id })
        .await
        .map_err(|status| match connect::broken(&status) {
            Some(cause) => AgentError::Broken(cause),
            None => AgentError::Refused(status.message().to_owned()),
        })?;
    // Another list of the same coordinator has a folder of its own.
    let folder = |print: &str| {
        let short = print.get(..16).unwrap_or(print);
        cli.cache_dir.join("images").join(short)
    };
    Manifest::listed(listed.into_inner(), folder)
        .map_err(|error| AgentError::Refused(error.to_string()))
}
