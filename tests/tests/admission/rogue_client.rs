//! A gRPC client that violates the protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use proto::v1;
use proto::v1::trainer_client::TrainerClient;
use proto::v1::worker_message::Message as Up;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Each of its methods opens a connection of its own and returns the status that ended the call.
pub(crate) struct RogueClient {
    runtime: Runtime,
    url: String,
    token: Option<String>,
}

fn register_message() -> v1::Register {
    v1::Register {
        protocol_version: proto::PROTOCOL_VERSION,
        host: "rogue".to_owned(),
        instance: fastrand::u64(1..),
        ..Default::default()
    }
}

fn up(message: Up) -> v1::WorkerMessage {
    v1::WorkerMessage {
        message: Some(message),
    }
}

impl RogueClient {
    pub(crate) fn at(url: &str, token: Option<&str>) -> Self {
        Self {
            runtime: Runtime::new().unwrap(),
            url: url.to_owned(),
            token: token.map(str::to_owned),
        }
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    async fn client(&self) -> TrainerClient<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        TrainerClient::new(endpoint.connect().await.expect("a connection"))
    }

    /// Sends `messages`, the last one repeatedly if `endless`, and waits for the session's end.
    fn session(&self, messages: Vec<v1::WorkerMessage>, endless: bool) -> Status {
        let session = async {
            let (sender, outgoing) = mpsc::channel(64);
            // An error means that the server has closed the session; its status is what counts.
            let talk = tokio::spawn(async move {
                for message in &messages {
                    let _ = sender.send(message.clone()).await;
                }
                while endless && let Some(last) = messages.last() {
                    if sender.send(last.clone()).await.is_err() {
                        return;
                    }
                }
                // The session stays open without messages.
                sender.closed().await;
            });
            let mut client = self.client().await;
            let outgoing = self.request(ReceiverStream::new(outgoing));
            let mut inbound = match client.session(outgoing).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return status,
            };
            let status = loop {
                match inbound.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Status::ok("the session ended"),
                    Err(status) => break status,
                }
            };
            talk.abort();
            status
        };
        self.runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, session).await })
            .expect("an end in time")
    }

    pub(crate) fn register(&self, change: impl FnOnce(&mut v1::Register)) -> Status {
        let mut message = register_message();
        change(&mut message);
        self.session(vec![up(Up::Register(message))], false)
    }

    pub(crate) fn register_twice(&self) -> Status {
        self.session(vec![up(Up::Register(register_message())); 2], false)
    }

    pub(crate) fn without_register(&self) -> Status {
        let message = up(Up::Preparing(v1::Preparing { done: 1 }));
        self.session(vec![message], false)
    }

    pub(crate) fn silent(&self) -> Status {
        self.session(Vec::new(), false)
    }

    /// Sends messages as fast as the coordinator accepts them, until the flood is stopped.
    pub(crate) fn flood(self) -> Flood {
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let sent = std::thread::spawn(move || self.send_until(&until));
        Flood { enough, sent }
    }

    fn send_until(&self, enough: &AtomicBool) -> u64 {
        let (sender, outgoing) = mpsc::channel(1);
        let talk = async {
            let mut sent = 0;
            let mut next = up(Up::Register(register_message()));
            while !enough.load(Ordering::Relaxed) && sender.send(next).await.is_ok() {
                sent += 1;
                next = up(Up::StepReport(v1::StepReport::default()));
            }
            drop(sender);
            sent
        };
        let read = async {
            let outgoing = self.request(ReceiverStream::new(outgoing));
            let answer = self.client().await.session(outgoing).await;
            let mut inbound = answer.expect("a session").into_inner();
            // It reads its commands, so that it is not evicted for that.
            while let Ok(Some(_)) = inbound.message().await {}
        };
        let flood = async { tokio::join!(talk, read).0 };
        self.runtime.block_on(flood)
    }

    /// Downloads the best weights with the id of `worker`.
    pub(crate) fn download(&self, worker: u64) -> Status {
        let request = self.request(v1::DownloadRequest {
            worker_id: worker,
            kind: v1::BlobKind::BestState.into(),
            position: None,
        });
        self.runtime.block_on(async {
            match self.client().await.download(request).await {
                Ok(_) => Status::ok("accepted"),
                Err(status) => status,
            }
        })
    }

    /// Uploads a valid blob with the id of `worker`.
    pub(crate) fn upload(&self, worker: u64) -> Status {
        let header = v1::BlobHeader {
            worker_id: worker,
            kind: v1::BlobKind::BestState.into(),
            ..Default::default()
        };
        let chunks = common::blob::chunks(header, vec![1; 10]);
        self.runtime.block_on(async {
            let chunks = self.request(tokio_stream::iter(chunks));
            match self.client().await.upload(chunks).await {
                Ok(_) => Status::ok("accepted"),
                Err(status) => status,
            }
        })
    }
}

/// Sends `words` to the run at `host` and reads until the run closes the connection.
pub(crate) fn until_closed(host: &str, words: &[u8]) {
    let mut stream = TcpStream::connect(host).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream.write_all(words).unwrap();
    // HTTP/2 answers with its settings and the reason of the end.
    let closed = stream.read_to_end(&mut Vec::new());
    if let Err(error) = closed {
        let waited = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        assert!(!waited, "still open after {words:?}");
    }
}

/// A running flood of messages.
pub(crate) struct Flood {
    enough: Arc<AtomicBool>,
    sent: JoinHandle<u64>,
}

impl Flood {
    /// Stops it, and returns how many messages were accepted.
    pub(crate) fn stop(self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        self.sent.join().expect("the number of messages")
    }
}
