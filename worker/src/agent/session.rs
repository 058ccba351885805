//! How a worker connects and registers: it retries until a coordinator answers, or until a timeout.

use std::time::Duration;

use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::worker_message::Message as Up;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::agent::connect::{self, Client, Coordinator};
use crate::error::AgentError;

const RETRY: Duration = Duration::from_millis(200);

/// An open session, with the coordinator's `Registered`.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) outbox: mpsc::UnboundedSender<v1::WorkerMessage>,
    pub(crate) inbound: Streaming<v1::CoordinatorMessage>,
    pub(crate) registered: v1::Registered,
}

/// What identifies this process to the coordinator, over all of its sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    local_rank: Option<u32>,
    instance: u64,
}

impl Identity {
    /// The identity of a process with the `local_rank` of a launcher, or without one.
    pub(crate) fn new(local_rank: Option<u32>) -> Result<Self, getrandom::Error> {
        Ok(Self {
            local_rank,
            // 0 stands for no id.
            instance: getrandom::u64()?.max(1),
        })
    }
}

/// Opens a session within `timeout`.
pub(crate) async fn open(
    coordinator: &Coordinator,
    who: Identity,
    timeout: Duration,
) -> Result<Session, AgentError> {
    let unreachable = |cause: String| AgentError::Unreachable {
        url: coordinator.url().to_owned(),
        seconds: timeout.as_secs(),
        cause,
    };
    let deadline = Instant::now() + timeout;
    let mut logged = String::new();
    loop {
        let attempt = async {
            let client = coordinator.client().await.map_err(Attempt::Again)?;
            register(client, who).await
        };
        match attempt.await {
            Ok(session) => return Ok(session),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(cause)) if Instant::now() >= deadline => {
                return Err(unreachable(cause));
            }
            Err(Attempt::Again(cause)) => {
                if logged != cause {
                    tracing::info!("cannot reach the coordinator yet: {cause}");
                    logged = cause;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Why an attempt failed, and whether another is worth it.
enum Attempt {
    Again(String),
    Final(AgentError),
}

impl Attempt {
    fn status(status: &Status) -> Self {
        if let Some(cause) = connect::broken(status) {
            return Self::Again(cause);
        }
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted => Self::Again(message),
            _ => Self::Final(AgentError::Refused(message)),
        }
    }
}

async fn register(mut client: Client, who: Identity) -> Result<Session, Attempt> {
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let register = v1::Register {
        protocol_version: proto::PROTOCOL_VERSION,
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        pid: std::process::id(),
        local_rank: who.local_rank,
        instance: who.instance,
    };
    send(&outbox, Up::Register(register));
    let mut inbound = client
        .session(UnboundedReceiverStream::new(outgoing))
        .await
        .map_err(|status| Attempt::status(&status))?
        .into_inner();
    match next(&mut inbound).await {
        Ok(Down::Registered(registered)) => Ok(Session {
            client,
            outbox,
            inbound,
            registered,
        }),
        Ok(Down::Shutdown(shutdown)) => Err(Attempt::Final(AgentError::Refused(shutdown.reason))),
        Ok(_) => Err(Attempt::Again(
            "the first message was not Registered".to_owned(),
        )),
        Err(cause) => Err(Attempt::Again(cause)),
    }
}

/// The next message, or why there is none.
pub(crate) async fn next(inbound: &mut Streaming<v1::CoordinatorMessage>) -> Result<Down, String> {
    match inbound.message().await {
        Ok(Some(v1::CoordinatorMessage {
            message: Some(message),
        })) => Ok(message),
        Ok(_) => Err("the coordinator closed the session".to_owned()),
        Err(status) => Err(status.message().to_owned()),
    }
}

pub(crate) fn send(outbox: &mpsc::UnboundedSender<v1::WorkerMessage>, message: Up) {
    // A closed outbox means a broken session, which the reading side reports.
    let _ = outbox.send(v1::WorkerMessage {
        message: Some(message),
    });
}
