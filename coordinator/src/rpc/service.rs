//! The gRPC edge: parses, hands on to the driver, and sends what the driver answers. It decides
//! nothing and keeps no state of the run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::blob::{self, Assembly, BlobError};
use prost::Message;
use proto::v1::trainer_server::Trainer;
use proto::v1::worker_message::Message as Up;
use proto::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::admission::Admission;
use super::limits::{REGISTER_TIMEOUT, SESSION_DRAIN_TIMEOUT, UPLOAD_STALL_LIMIT};
use super::rate::Rate;
use super::validate as sense;
use crate::rpc::convert;
use crate::rpc::dataset::Dataset;
use crate::runtime::input::{DriverInput, Outbox};
use coordinator_core::Event;

/// A blob on its way out.
pub type BlobChunks = Box<dyn Iterator<Item = Result<v1::Chunk, Status>> + Send>;

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct TrainerService {
    driver: mpsc::UnboundedSender<DriverInput>,
    dataset: Dataset,
    gate: Admission,
}

impl TrainerService {
    /// A service that reports to `driver`, and gives `dataset` to workers that ask for it.
    pub fn new(driver: mpsc::UnboundedSender<DriverInput>, dataset: Dataset) -> Self {
        Self {
            driver,
            dataset,
            gate: Admission::default(),
        }
    }

    /// The tonic server with this project's message limits.
    pub fn into_server(self) -> v1::trainer_server::TrainerServer<Self> {
        v1::trainer_server::TrainerServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn tell(&self, arrival: DriverInput) -> Result<(), Status> {
        self.driver
            .send(arrival)
            .map_err(|_| Status::unavailable("the run is over"))
    }
}

#[tonic::async_trait]
impl Trainer for TrainerService {
    type SessionStream = UnboundedReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let starting = self.gate.session()?;
        let peer = request.remote_addr();
        let mut inbound = request.into_inner();
        let first = within(REGISTER_TIMEOUT, "a Register", inbound.message()).await?;
        let register = sense::register(first)?;
        let (messages, outgoing) = mpsc::unbounded_channel();
        let (open, closed) = oneshot::channel();
        // A weak one, since the driver ends the session by dropping its own.
        let refusals = messages.downgrade();
        let outbox = Outbox::new(messages, open);
        let (reply, name) = oneshot::channel();
        self.tell(DriverInput::Worker {
            register,
            outbox,
            reply,
        })?;
        let (admit, admitted) = oneshot::channel();
        let (gate, driver) = (self.gate.clone(), self.driver.clone());
        let host = peer.map_or_else(|| "127.0.0.1".to_owned(), host_of);
        // A task of its own from here on: this call ends where the client hangs up, but who
        // has become a member must also be lost again.
        tokio::spawn(async move {
            let Ok(worker) = name.await else {
                return;
            };
            let _live = gate.live(worker.0);
            drop(starting);
            // It fails when the client has hung up, which the first read says too.
            let _ = admit.send(());
            let mut rate = Rate::new(Instant::now());
            let farewell = async {
                let _ = closed.await;
                tokio::time::sleep(SESSION_DRAIN_TIMEOUT).await;
            };
            tokio::pin!(farewell);
            let ended = loop {
                let message = tokio::select! {
                    message = next(&mut inbound, &mut rate) => message,
                    () = &mut farewell => break Ok(()),
                };
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                };
                let Some(event) = convert::event(worker, &host, message) else {
                    break Ok(());
                };
                if driver.send(DriverInput::Event(event)).is_err() {
                    break Ok(());
                }
            };
            if let (Err(status), Some(outbox)) = (ended, refusals.upgrade()) {
                tracing::warn!(%worker, "its session is closed: {}", status.message());
                // It fails only when the session is gone anyway.
                let _ = outbox.send(Err(status));
            }
            // The driver may be gone already: then nobody needs to know.
            let _ = driver.send(DriverInput::Event(Event::Lost { worker }));
        });
        admitted
            .await
            .map_err(|_| Status::unavailable("the run is over"))?;
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::Chunk>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let place = self.gate.upload()?;
        let mut chunks = request.into_inner();
        let first = within(REGISTER_TIMEOUT, "a header", chunks.message()).await?;
        let mut assembly = Assembly::begin(first).map_err(refused)?;
        sense::header(assembly.header())?;
        self.gate.known(assembly.header().worker_id)?;
        while let Some(chunk) = within(UPLOAD_STALL_LIMIT, "more data", chunks.message()).await? {
            assembly.add(chunk).map_err(refused)?;
        }
        let (header, bytes) = assembly.finish().map_err(refused)?;
        self.tell(DriverInput::Blob {
            header,
            bytes,
            place,
        })?;
        Ok(Response::new(v1::UploadReply {}))
    }

    type DownloadStream = tokio_stream::Iter<BlobChunks>;

    async fn download(
        &self,
        request: Request<v1::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let (reply, answer) = oneshot::channel();
        let local_rank = self.gate.download()?;
        let request = request.into_inner();
        self.gate.known(request.worker_id)?;
        self.tell(DriverInput::Download { request, reply })?;
        let path = answer
            .await
            .map_err(|_| Status::unavailable("the run is over"))??;
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| Status::not_found(format!("{}: {error}", path.display())))?;
        // The place is taken for as long as the bytes are in memory.
        let chunks = blob::chunks(v1::BlobHeader::default(), bytes);
        let chunks: BlobChunks = Box::new(chunks.map(move |chunk| {
            let _held = &local_rank;
            Ok(chunk)
        }));
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::Dataset>, Status> {
        self.gate.known(request.into_inner().worker_id)?;
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
        self.gate.known(request.worker_id)?;
        let images = self.dataset.images(request.samples).await?;
        Ok(Response::new(ReceiverStream::new(images)))
    }
}

fn refused(error: BlobError) -> Status {
    match error {
        BlobError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        BlobError::NoHeader | BlobError::NoData => Status::invalid_argument(error.to_string()),
        BlobError::Length { .. } | BlobError::Checksum => Status::data_loss(error.to_string()),
    }
}

/// The next message of a session, if it makes sense and does not come too fast.
async fn next(
    inbound: &mut Streaming<v1::WorkerMessage>,
    rate: &mut Rate,
) -> Result<Option<Up>, Status> {
    let Some(message) = inbound.message().await? else {
        return Ok(None);
    };
    rate.take(message.encoded_len(), Instant::now())?;
    sense::message(message).map(Some)
}

async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, future)
        .await
        .unwrap_or_else(|_| {
            let message = format!("{what} did not come within {limit:?}");
            Err(Status::deadline_exceeded(message))
        })
}

/// The address as it stands in front of a port.
fn host_of(peer: SocketAddr) -> String {
    match peer {
        SocketAddr::V4(peer) => peer.ip().to_string(),
        SocketAddr::V6(peer) => match peer.ip().to_ipv4_mapped() {
            Some(ip) => ip.to_string(),
            None => format!("[{}]", peer.ip()),
        },
    }
}
