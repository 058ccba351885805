//! The worker's one conversation with the coordinator. It owns the session and the uploads;
//! it touches no tensor and decides nothing about training.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::worker_message::Message as Up;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tonic::Streaming;

use crate::cli::Cli;
use crate::connect::{self, Client, Joined, Launcher};
use crate::control::{Inbox, Link, Order, Outgoing};
use crate::train;

/// How long a training thread may take to notice that its group was aborted.
const ABORT_GRACE: Duration = Duration::from_secs(3);

/// How a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Flags or files that cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// Nobody answers.
    #[error("no coordinator at {url} within {seconds} s: {cause}")]
    Unreachable {
        /// The address as given.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The last attempt's words.
        cause: String,
    },
    /// The coordinator turned the worker away.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The session broke.
    #[error("the session with the coordinator broke: {0}")]
    Broken(String),
    /// Training failed; the coordinator was told.
    #[error("{0}")]
    Training(String),
}

/// Joins the run at `cli.coordinator` and trains until it ends.
///
/// # Errors
/// When the coordinator cannot be reached, refuses, or goes away, and when training fails.
pub async fn run(cli: Cli) -> Result<(), AgentError> {
    let slot: Option<u32> = std::env::var(proto::SLOT_VARIABLE)
        .ok()
        .and_then(|slot| slot.parse().ok());
    let hello = v1::Hello {
        protocol_version: proto::PROTOCOL_VERSION,
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        pid: std::process::id(),
        slot,
    };
    let Joined {
        client,
        outbox,
        mut inbound,
    } = match slot.is_some().then(Launcher::of_process) {
        None => connect::join(&cli, None, hello).await?,
        Some(mut launcher) => {
            let token = launcher.token().await?;
            tokio::select! {
                joined = connect::join(&cli, Some(&token), hello) => joined?,
                () = launcher.gone() => {
                    return Err(AgentError::Broken("its launcher is gone".to_owned()));
                }
            }
        }
    };
    let address = own_address(&cli).await;
    let welcome = match next(&mut inbound).await? {
        Down::Welcome(welcome) => welcome,
        Down::Shutdown(shutdown) => return Err(AgentError::Refused(shutdown.reason)),
        _ => {
            return Err(AgentError::Broken(
                "the first message was no welcome".to_owned(),
            ));
        }
    };
    let mut session = Session {
        client,
        outbox,
        worker_id: welcome.worker_id,
        inbox: Inbox::default(),
        upload: None,
        store: None,
        group: None,
    };
    let mut settings = welcome.settings.unwrap_or_default();
    if let Some(data) = cli.data {
        settings.data = data;
    }
    if let Some(path) = cli.pretrained {
        settings.pretrained = Some(path.to_string_lossy().into_owned());
    }
    session.serve(settings, address, inbound).await
}

/// The address of this machine on the way to the coordinator, where its peers reach it too.
async fn own_address(cli: &Cli) -> IpAddr {
    let route = async {
        let peer = connect::peer(cli).await?;
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing; it only asks the routing table.
        let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(peer).await.ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    route.await.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

async fn next(inbound: &mut Streaming<v1::CoordinatorMessage>) -> Result<Down, AgentError> {
    match inbound.message().await {
        Ok(Some(v1::CoordinatorMessage {
            message: Some(message),
        })) => Ok(message),
        Ok(_) => Err(AgentError::Broken("the coordinator closed it".to_owned())),
        Err(status) => Err(AgentError::Broken(status.message().to_owned())),
    }
}

fn say(outbox: &mpsc::UnboundedSender<v1::WorkerMessage>, message: Up) {
    // A closed outbox means a broken session, which the reading side reports.
    let _ = outbox.send(v1::WorkerMessage {
        message: Some(message),
    });
}

struct Session {
    client: Client,
    outbox: mpsc::UnboundedSender<v1::WorkerMessage>,
    worker_id: u64,
    inbox: Inbox,
    /// The last upload, which waits for the one before it.
    upload: Option<JoinHandle<Result<(), String>>>,
    store: Option<c10d::Store>,
    group: Option<c10d::ProcessGroup>,
}

impl Session {
    /// Runs the training thread and carries its messages until it ends.
    async fn serve(
        &mut self,
        settings: v1::Settings,
        address: IpAddr,
        mut inbound: Streaming<v1::CoordinatorMessage>,
    ) -> Result<(), AgentError> {
        let (link, mut outgoing) = mpsc::unbounded_channel();
        let (ended, mut end) = oneshot::channel();
        let inbox = self.inbox.clone();
        std::thread::Builder::new()
            .name("train".to_owned())
            .spawn(move || {
                // The agent may have given up waiting: then the process is about to exit.
                let _ = ended.send(train::run(&settings, address, &inbox, &Link::new(link)));
            })
            .map_err(|error| AgentError::Training(format!("cannot start a thread: {error}")))?;
        let mut over = false;
        let result = loop {
            tokio::select! {
                biased;
                Some(outgoing) = outgoing.recv() => self.pass_on(outgoing).await,
                result = &mut end => break result,
                // After a polite shutdown the coordinator hangs up, which is no news.
                message = next(&mut inbound), if !over => match message {
                    Ok(message) => {
                        if let Some(shutdown) = self.take(message) {
                            over = true;
                            if shutdown.abort {
                                self.abort(&mut end).await;
                                return Err(AgentError::Training(shutdown.reason));
                            }
                        }
                    }
                    Err(error) => {
                        self.inbox.push(Order::Shutdown(v1::Shutdown::default()));
                        self.abort(&mut end).await;
                        return Err(error);
                    }
                },
            }
        };
        while let Ok(outgoing) = outgoing.try_recv() {
            self.pass_on(outgoing).await;
        }
        if let Err(error) = self.settle_uploads().await {
            tracing::error!(error);
        }
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => {
                let message = failure.message.clone();
                say(&self.outbox, Up::Failure(failure));
                self.drain(inbound).await;
                Err(AgentError::Training(message))
            }
            Err(_) => {
                let message = "the training thread panicked".to_owned();
                let kind = v1::FailureKind::Internal.into();
                say(
                    &self.outbox,
                    Up::Failure(v1::Failure {
                        kind,
                        message: message.clone(),
                    }),
                );
                self.drain(inbound).await;
                Err(AgentError::Training(message))
            }
        }
    }

    /// Gives the coordinator a moment to read the last words and answer with its shutdown.
    async fn drain(&self, mut inbound: Streaming<v1::CoordinatorMessage>) {
        let farewell = async {
            while let Ok(message) = next(&mut inbound).await {
                if matches!(message, Down::Shutdown(_)) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ABORT_GRACE, farewell).await;
    }

    fn take(&self, message: Down) -> Option<v1::Shutdown> {
        let order = match message {
            Down::Welcome(_) => return None,
            Down::StepGrant(grant) => {
                self.inbox.grant(&grant);
                return None;
            }
            Down::Prepare(order) => Order::Prepare(order),
            Down::Assignment(order) => Order::Assign(order),
            Down::EpochPlan(order) => Order::Plan(order),
            Down::Verdict(order) => Order::Verdict(order),
            Down::Finish(order) => Order::Finish(order),
            Down::Shutdown(shutdown) => {
                self.inbox.push(Order::Shutdown(shutdown.clone()));
                return Some(shutdown);
            }
        };
        self.inbox.push(order);
        None
    }

    async fn pass_on(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Store(store) => self.store = Some(store),
            Outgoing::Group(group) => self.group = Some(group),
            // "Finished" promises that everything is with the coordinator.
            Outgoing::Message(message @ Up::Finished(_)) => match self.settle_uploads().await {
                Ok(()) => say(&self.outbox, message),
                Err(message) => {
                    let kind = v1::FailureKind::Internal.into();
                    say(&self.outbox, Up::Failure(v1::Failure { kind, message }));
                }
            },
            Outgoing::Message(message) => say(&self.outbox, message),
            Outgoing::Upload {
                kind,
                generation,
                epoch,
                bytes,
            } => self.upload(kind, generation, epoch, bytes),
        }
    }

    /// One upload after the other, so that newer weights never arrive before older ones.
    fn upload(&mut self, kind: v1::BlobKind, generation: u64, epoch: u32, bytes: Vec<u8>) {
        let mut client = self.client.clone();
        let chunks = proto::blob::chunks(self.worker_id, generation, epoch, kind, bytes);
        let previous = self.upload.take();
        self.upload = Some(tokio::spawn(async move {
            if let Some(previous) = previous {
                outcome(previous.await)?;
            }
            let sent = client.upload(tokio_stream::iter(chunks)).await;
            match sent {
                Ok(_) => Ok(()),
                Err(status) if kind == v1::BlobKind::BestState => Err(format!(
                    "the best weights of epoch {epoch} could not be handed over: {}",
                    status.message()
                )),
                Err(status) => {
                    tracing::warn!(status = status.message(), ?kind, "an upload was refused");
                    Ok(())
                }
            }
        }));
    }

    async fn settle_uploads(&mut self) -> Result<(), String> {
        match self.upload.take() {
            Some(upload) => outcome(upload.await),
            None => Ok(()),
        }
    }

    /// Breaks collectives that will not complete, then gives the thread a moment.
    async fn abort(&mut self, end: &mut oneshot::Receiver<Result<(), v1::Failure>>) {
        if let Some(store) = self.store.take() {
            store.interrupt();
        }
        if let Some(group) = self.group.take() {
            let abort = tokio::task::spawn_blocking(move || group.abort());
            let _ = tokio::time::timeout(ABORT_GRACE, abort).await;
        }
        let _ = tokio::time::timeout(ABORT_GRACE, end).await;
    }
}

fn outcome(ended: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    ended.unwrap_or_else(|error| Err(format!("an upload failed: {error}")))
}
