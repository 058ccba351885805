//! The data set for workers without a data folder: the list of images, and the files as they are
//! on this machine's disk, within the bandwidth of `--data-bandwidth`. It reads the data folder and
//! changes nothing.

mod pace;

use std::path::PathBuf;
use std::sync::Arc;

use common::blob;
use common::manifest::Manifest;
use proto::v1;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tonic::Status;

use crate::config::{DataSource, RunConfig};
use crate::observe::metrics::Metrics;
use pace::Pace;

/// Streams at a time; others wait. They share one bandwidth, so more would not be faster.
const STREAMS: usize = 8;
/// Images that are read ahead of the network, for each stream.
const AHEAD: usize = 4;

/// The chunks of a stream of images.
pub type Images = mpsc::Receiver<Result<v1::Chunk, Status>>;

/// The data set; cheap to clone.
#[derive(Debug, Clone)]
pub struct Dataset(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None for the demo set, which every worker generates itself.
    folder: Option<PathBuf>,
    limit_per_class: Option<usize>,
    listed: OnceCell<Arc<Manifest>>,
    streams: Arc<Semaphore>,
    pace: Pace,
    metrics: Metrics,
}

impl Dataset {
    /// The data set of a run. Nothing is read before the first worker asks.
    #[must_use]
    pub fn new(config: &RunConfig, metrics: Metrics) -> Self {
        let folder = match &config.data {
            DataSource::Demo => None,
            DataSource::Directory(folder) => Some(folder.clone()),
        };
        metrics.set_data_bandwidth(config.data_bandwidth);
        Self(Arc::new(Inner {
            folder,
            limit_per_class: config.limit_per_class,
            listed: OnceCell::new(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            pace: Pace::new(config.data_bandwidth),
            metrics,
        }))
    }

    /// The list of images; the folder is scanned once.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when this machine has no usable data folder.
    pub async fn list(&self) -> Result<Arc<Manifest>, Status> {
        let Some(folder) = self.0.folder.clone() else {
            return Err(Status::failed_precondition(
                "each worker generates the demo set itself: start it without --data coordinator",
            ));
        };
        let limit = self.0.limit_per_class;
        let scan = || async {
            let scanned = tokio::task::spawn_blocking(move || Manifest::scan(&folder, limit)).await;
            match scanned {
                Ok(Ok(manifest)) => Ok(Arc::new(manifest)),
                Ok(Err(error)) => Err(Status::failed_precondition(format!(
                    "the coordinator cannot serve its data folder: {error}"
                ))),
                Err(error) => Err(Status::internal(error.to_string())),
            }
        };
        self.0.listed.get_or_try_init(scan).await.cloned()
    }

    /// These images of the list, one blob each.
    ///
    /// # Errors
    /// As [`list`](Self::list), and `OUT_OF_RANGE` for an image that is not listed. A file that
    /// cannot be read, or has another size than it had, ends the stream with `DATA_LOSS`.
    pub async fn images(&self, samples: Vec<u32>) -> Result<Images, Status> {
        let manifest = self.list().await?;
        let images = manifest.files.len();
        if let Some(sample) = samples.iter().find(|at| **at as usize >= images) {
            return Err(Status::out_of_range(format!(
                "no image {sample}: the list has {images} images"
            )));
        }
        let (sender, receiver) = mpsc::channel(AHEAD);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = Arc::clone(&inner.streams).acquire_owned().await;
            for sample in samples {
                let chunks = match inner.read(&manifest, sample).await {
                    Ok(chunks) => chunks,
                    // It fails when the worker is gone.
                    Err(status) => return drop(sender.send(Err(status)).await),
                };
                for chunk in chunks {
                    inner.pace.pass(size_of_data(&chunk)).await;
                    inner.metrics.data_sent(size_of_data(&chunk));
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(receiver)
    }
}

impl Inner {
    async fn read(
        &self,
        manifest: &Manifest,
        sample: u32,
    ) -> Result<impl Iterator<Item = v1::Chunk> + use<>, Status> {
        let entry = &manifest.files[sample as usize];
        let lost = |what: String| Status::data_loss(format!("{}: {what}", entry.path));
        let bytes = tokio::fs::read(manifest.root.join(&entry.path))
            .await
            .map_err(|error| lost(format!("the coordinator cannot read the file: {error}")))?;
        if bytes.len() as u64 != entry.size {
            let (now, was) = (bytes.len(), entry.size);
            return Err(lost(format!(
                "the file has {now} bytes on the coordinator, and had {was} when it was listed"
            )));
        }
        let label = v1::BlobHeader {
            kind: v1::BlobKind::Image.into(),
            sample,
            ..Default::default()
        };
        Ok(blob::chunks(label, bytes))
    }
}

fn size_of_data(chunk: &v1::Chunk) -> u64 {
    match &chunk.part {
        Some(v1::chunk::Part::Data(data)) => data.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
