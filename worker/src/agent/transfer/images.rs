//! Images from the coordinator, each verified and written atomically.

use std::io::Write;
use std::path::Path;

use common::blob::{Assembly, BlobError};
use proto::v1;
use tonic::{Code, Status};

use crate::agent::connect::{self, Client};
use crate::trainer::link::{FetchError, Wanted};

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        let words = status.message().to_owned();
        match status.code() {
            // The session has ended, and only members may download.
            Code::NotFound | Code::Unavailable | Code::Cancelled => Self::Broken(words),
            _ => connect::broken(&status).map_or(Self::Refused(words), Self::Broken),
        }
    }
}

impl From<BlobError> for FetchError {
    fn from(error: BlobError) -> Self {
        Self::Refused(format!("an image from the coordinator: {error}"))
    }
}

/// Downloads images in this order.
pub(super) async fn fetch(
    mut client: Client,
    worker_id: u64,
    wanted: Vec<Wanted>,
) -> Result<(), FetchError> {
    let samples = wanted.iter().map(|wanted| wanted.sample).collect();
    let request = v1::GetImagesRequest { worker_id, samples };
    let mut chunks = client.get_images(request).await?.into_inner();
    for wanted in wanted {
        let mut assembly = Assembly::begin(chunks.message().await?)?;
        while !assembly.is_whole() {
            match chunks.message().await? {
                Some(chunk) => assembly.add(chunk)?,
                None => break,
            }
        }
        let (header, bytes) = assembly.finish()?;
        if header.sample != wanted.sample || bytes.len() as u64 != wanted.size {
            let words = format!(
                "received image {} instead of {}",
                header.sample, wanted.sample
            );
            return Err(FetchError::Refused(words));
        }
        let stored = tokio::task::spawn_blocking(move || put(&wanted.path, &bytes)).await;
        stored
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(FetchError::Refused)?;
    }
    Ok(())
}

/// Other workers may read or write the same file at the same time.
fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}
