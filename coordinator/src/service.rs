//! The gRPC edge: parses, hands on to the driver, and sends what the driver answers. It decides
//! nothing and keeps no state of the run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;
use proto::v1::trainer_server::Trainer;
use proto::v1::worker_message::Message as Up;
use proto::{MAX_MESSAGE_BYTES, v1};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::convert;
use crate::core::{Event, WorkerId};
use crate::security::{Gate, HELLO_LIMIT, Rate, UPLOAD_STALL_LIMIT, sense};

/// Where a worker's messages go.
pub type Outbox = mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>;

/// What the edge hands to the driver.
pub enum Arrival {
    /// A worker introduced itself; the driver answers with its name through `reply`.
    Worker {
        /// Its first message.
        hello: v1::Hello,
        /// For everything it is to be told.
        outbox: Outbox,
        /// Its name for the rest of the session.
        reply: oneshot::Sender<WorkerId>,
    },
    /// Something for the core.
    Event(Event),
    /// A blob whose length and sum are right.
    Blob {
        /// What it is.
        header: v1::BlobHeader,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// The best weights of an epoch were written, or why not.
    Stored {
        /// From 1.
        epoch: u32,
        /// The reason in words.
        result: Result<(), String>,
    },
}

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct TrainerService {
    driver: mpsc::UnboundedSender<Arrival>,
    gate: Gate,
}

impl TrainerService {
    /// A service that reports to `driver`.
    pub fn new(driver: mpsc::UnboundedSender<Arrival>) -> Self {
        Self {
            driver,
            gate: Gate::default(),
        }
    }

    /// The tonic server with this project's message limits.
    pub fn into_server(self) -> v1::trainer_server::TrainerServer<Self> {
        v1::trainer_server::TrainerServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn tell(&self, arrival: Arrival) -> Result<(), Status> {
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
        let first = within(HELLO_LIMIT, "a Hello", inbound.message()).await?;
        let hello = sense::hello(first)?;
        let (outbox, outgoing) = mpsc::unbounded_channel();
        // A weak one, since the driver ends the session by dropping its own.
        let refusals = outbox.downgrade();
        let (reply, name) = oneshot::channel();
        self.tell(Arrival::Worker {
            hello,
            outbox,
            reply,
        })?;
        let worker = name
            .await
            .map_err(|_| Status::unavailable("the run is over"))?;
        drop(starting);
        let live = self.gate.live(worker.0);
        let driver = self.driver.clone();
        let host = peer.map_or_else(|| "127.0.0.1".to_owned(), host_of);
        tokio::spawn(async move {
            let _live = live;
            let mut rate = Rate::new(Instant::now());
            let ended = loop {
                let message = match next(&mut inbound, &mut rate).await {
                    Ok(Some(message)) => message,
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                };
                let Some(event) = convert::event(worker, &host, message) else {
                    break Ok(());
                };
                if driver.send(Arrival::Event(event)).is_err() {
                    break Ok(());
                }
            };
            if let (Err(status), Some(outbox)) = (ended, refusals.upgrade()) {
                tracing::warn!(%worker, "its session is closed: {}", status.message());
                // It fails only when the session is gone anyway.
                let _ = outbox.send(Err(status));
            }
            // The driver may be gone already: then nobody needs to know.
            let _ = driver.send(Arrival::Event(Event::Lost { worker }));
        });
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::Chunk>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let _slot = self.gate.upload()?;
        let mut chunks = request.into_inner();
        let first = within(HELLO_LIMIT, "a header", chunks.message()).await?;
        let header = sense::header(first)?;
        self.gate.known(header.worker_id)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = within(UPLOAD_STALL_LIMIT, "more data", chunks.message()).await? {
            let Some(v1::chunk::Part::Data(data)) = chunk.part else {
                return Err(Status::invalid_argument("a second header"));
            };
            bytes.extend_from_slice(&data);
            if bytes.len() as u64 > header.bytes {
                return Err(Status::invalid_argument(
                    "more bytes than the header announced",
                ));
            }
        }
        if bytes.len() as u64 != header.bytes {
            return Err(Status::data_loss("fewer bytes than the header announced"));
        }
        if Sha256::digest(&bytes).as_slice() != header.sha256 {
            return Err(Status::data_loss(
                "sha256 of the upload does not match its header",
            ));
        }
        self.tell(Arrival::Blob { header, bytes })?;
        Ok(Response::new(v1::UploadReply {}))
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
