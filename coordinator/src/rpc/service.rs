//! The methods of the gRPC service. It decides nothing and keeps no state of the run: sessions
//! are in `session`, files in `blobs`, images in `dataset`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::v1::trainer_server::{Trainer, TrainerServer};
use proto::{MAX_MESSAGE_BYTES, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::Admission;
use super::blobs::{BlobStream, Blobs};
use super::convert::Wire;
use super::dataset::Dataset;
use super::session::{SessionStream, Sessions};
use crate::runtime::Mailbox;

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct TrainerService {
    admission: Admission,
    sessions: Sessions,
    blobs: Blobs,
    dataset: Dataset,
}

impl TrainerService {
    /// A service that reports to `mailbox`, tells workers what `wire` says, and gives out
    /// `dataset` and the states in `run_dir`.
    pub fn new(mailbox: Mailbox, wire: Wire, dataset: Dataset, run_dir: &Path) -> Self {
        let admission = Admission::default();
        Self {
            sessions: Sessions {
                admission: admission.clone(),
                mailbox: mailbox.clone(),
                wire: Arc::new(wire),
            },
            blobs: Blobs::new(admission.clone(), mailbox, run_dir),
            admission,
            dataset,
        }
    }

    /// The tonic server with this project's message limits.
    pub fn into_server(self) -> TrainerServer<Self> {
        TrainerServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Trainer for TrainerService {
    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<SessionStream>, Status> {
        self.sessions.open(request).await.map(Response::new)
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::Chunk>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        self.blobs.receive(request.into_inner()).await?;
        Ok(Response::new(v1::UploadReply {}))
    }

    type DownloadStream = BlobStream;

    async fn download(
        &self,
        request: Request<v1::DownloadRequest>,
    ) -> Result<Response<BlobStream>, Status> {
        let stream = self.blobs.send(request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::Dataset>, Status> {
        self.admission.known(request.into_inner().worker_id)?;
        let manifest = self.dataset.list().await?;
        Ok(Response::new(v1::Dataset {
            classes: manifest.classes.clone(),
            files: manifest.entries(),
        }))
    }

    type GetImagesStream = ReceiverStream<Result<v1::Chunk, Status>>;

    async fn get_images(
        &self,
        request: Request<v1::GetImagesRequest>,
    ) -> Result<Response<Self::GetImagesStream>, Status> {
        let request = request.into_inner();
        self.admission.known(request.worker_id)?;
        let images = self.dataset.images(request.samples).await?;
        Ok(Response::new(ReceiverStream::new(images)))
    }
}

/// The result of `future`, which a client has `limit` to bring about.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, future)
        .await
        .unwrap_or_else(|_| {
            let message = format!("{what} did not arrive within {limit:?}");
            Err(Status::deadline_exceeded(message))
        })
}
