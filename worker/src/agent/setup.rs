//! What a worker trains with, beyond what the coordinator tells all of them: where its images
//! are, where its peers reach it, and what is wrong with its machine.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use common::manifest::Manifest;
use proto::v1;

use crate::agent::address::{self, Announced};
use crate::agent::connect::{self, Client, Coordinator};
use crate::agent::preflight::Facts;
use crate::cli::Cli;
use crate::error::AgentError;

/// What `--data` says for images that the coordinator gives.
const FROM_COORDINATOR: &str = "coordinator";

/// Where the images are.
#[derive(Debug)]
pub enum Images {
    /// In this folder, which is filled with the demo set if there is none.
    Demo(PathBuf),
    /// In this folder.
    Folder(PathBuf),
    /// With the coordinator: its list, of files that lie here once they were fetched.
    Coordinator(Manifest),
}

/// All that the training thread begins with.
#[derive(Debug)]
pub struct Setup {
    /// What every worker of the run does alike.
    pub settings: v1::Settings,
    /// Where the images are.
    pub images: Images,
    /// Where peers reach this worker.
    pub(crate) address: Announced,
    /// What is wrong with this machine.
    pub(crate) warnings: Vec<String>,
}

impl Setup {
    /// Finds it out.
    ///
    /// # Errors
    /// The flags name what is not there, or the coordinator does not give its list of images.
    pub(crate) async fn of(
        cli: &Cli,
        coordinator: &Coordinator,
        client: &Client,
        registered: &v1::Registered,
    ) -> Result<Self, AgentError> {
        let mut settings = registered.settings.clone().unwrap_or_default();
        if let Some(path) = &cli.pretrained {
            settings.pretrained = Some(path.to_string_lossy().into_owned());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock_ahead = now.map_or(0.0, |now| now.as_secs_f64() - registered.unix_seconds);
        let warnings = Facts::gather(&settings.device, clock_ahead).warnings();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let address = address::announced(cli.advertise.as_deref(), coordinator)
            .await
            .map_err(AgentError::Usage)?;
        let data = cli.data.as_deref().unwrap_or(&settings.data);
        let images = match (data, settings.data.as_str()) {
            ("demo", _) | (FROM_COORDINATOR, "demo") => Images::Demo(cli.cache_dir.join("demo")),
            (FROM_COORDINATOR, _) => Images::Coordinator(list(cli, client, registered).await?),
            (folder, _) => Images::Folder(folder.into()),
        };
        Ok(Self {
            settings,
            images,
            address,
            warnings,
        })
    }
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
