//! One session: a worker's messages into the mailbox of the driver, the driver's commands out. A
//! session is read only as fast as the driver takes its messages, so that flow control holds back
//! a worker that sends too much.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coordinator_core::{Event, WorkerId};
use prost::Message;
use proto::v1;
use proto::v1::worker_message::Message as Up;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Request, Status, Streaming};

use super::admission::Admission;
use super::convert::{self, Wire};
use super::limits::{REGISTER_TIMEOUT, SESSION_DRAIN_TIMEOUT};
use super::service::within;
use super::validate;
use crate::runtime::channels::{Commands, NotReading, Outgoing, RunOver};
use crate::runtime::input::DriverInput;
use crate::runtime::{Mailbox, Outbox};

/// Opens sessions; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Sessions {
    pub(super) admission: Admission,
    pub(super) mailbox: Mailbox,
    pub(super) wire: Arc<Wire>,
}

impl From<RunOver> for Status {
    fn from(over: RunOver) -> Self {
        Self::unavailable(over.to_string())
    }
}

impl From<NotReading> for Status {
    fn from(reason: NotReading) -> Self {
        Self::resource_exhausted(reason.to_string())
    }
}

impl Sessions {
    /// Waits for the first message, registers the worker with the driver, and reads on.
    ///
    /// # Errors
    /// There are too many sessions, the first message is invalid or late, or the run is over.
    pub(super) async fn open(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<SessionStream, Status> {
        let starting = self.admission.session()?;
        let host = request.remote_addr().map(host_of);
        let mut inbound = request.into_inner();
        let first = within(REGISTER_TIMEOUT, "Register", inbound.message()).await?;
        let registration = convert::registration(validate::register(first)?);
        let (outbox, Commands { commands, evicted }) = Outbox::new();
        let (reply, name) = oneshot::channel();
        let input = DriverInput::Register {
            registration,
            outbox,
            reply,
        };
        self.mailbox.send(input, 0).await?;
        let (admit, admitted) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (admission, mailbox) = (self.admission.clone(), self.mailbox.clone());
        // A task of its own from here on: this call ends when the client hangs up, but a worker
        // that has become a member must also be lost again.
        tokio::spawn(async move {
            let Ok(worker) = name.await else {
                return;
            };
            let _live = admission.live(worker.0);
            drop(starting);
            // It fails when the client has hung up, which the first read reports too.
            let _ = admit.send(worker);
            let reader = Reader {
                worker,
                host: host.unwrap_or_else(|| "127.0.0.1".to_owned()),
                inbound,
                mailbox: mailbox.clone(),
            };
            if let Err(status) = reader.read(evicted).await {
                // A broken connection is reported by the run, where it means a loss: workers that
                // end hang up, too. The others are errors in what the worker sent.
                match status.source() {
                    Some(_) => tracing::debug!(%worker, "session closed: {}", status.message()),
                    None => tracing::warn!(%worker, "session closed: {}", status.message()),
                }
                // It fails when the client has hung up.
                let _ = end.send(status);
            }
            // It fails when the run is over.
            let _ = mailbox
                .send(DriverInput::Event(Event::Lost { worker }), 0)
                .await;
        });
        Ok(SessionStream {
            worker: admitted.await.map_err(|_| RunOver)?,
            commands,
            ended: Some(ended),
            wire: Arc::clone(&self.wire),
        })
    }
}

/// The messages of a worker.
struct Reader {
    worker: WorkerId,
    host: String,
    inbound: Streaming<v1::WorkerMessage>,
    mailbox: Mailbox,
}

impl Reader {
    /// Reads until the worker ends the session, the driver does, or a message is refused.
    async fn read(mut self, evicted: oneshot::Receiver<NotReading>) -> Result<(), Status> {
        let drained = async {
            match evicted.await {
                Ok(reason) => Err(reason.into()),
                Err(_) => {
                    tokio::time::sleep(SESSION_DRAIN_TIMEOUT).await;
                    Ok(())
                }
            }
        };
        tokio::select! {
            read = self.read_on() => read,
            drained = drained => drained,
        }
    }

    async fn read_on(&mut self) -> Result<(), Status> {
        while let Some(message) = self.inbound.message().await? {
            let wire = message.encoded_len();
            let message: Up = validate::message(message)?;
            let bytes = wire + memory_of_elements(&message);
            let Some(event) = convert::event(self.worker, &self.host, message) else {
                return Ok(());
            };
            let event = DriverInput::Event(event);
            if self.mailbox.send(event, bytes).await.is_err() {
                // The run is over. The worker's `Shutdown` is on its way; a status would overtake it.
                break;
            }
        }
        Ok(())
    }
}

/// Bytes that the elements of a message take beside their contents: on the wire an empty one has
/// 2.
fn memory_of_elements(message: &Up) -> usize {
    match message {
        Up::Scanned(m) => size_of_val(&m.files[..]) + size_of_val(&m.classes[..]),
        Up::Prepared(m) => size_of_val(&m.bad[..]),
        Up::EpochReport(m) => size_of_val(&m.validation[..]),
        _ => 0,
    }
}

/// What a worker is sent: its commands, and at last the status that ended the session.
#[derive(Debug)]
pub struct SessionStream {
    worker: WorkerId,
    commands: mpsc::Receiver<Outgoing>,
    /// Cuts the commands off.
    ended: Option<oneshot::Receiver<Status>>,
    wire: Arc<Wire>,
}

impl Stream for SessionStream {
    type Item = Result<v1::CoordinatorMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ended) = &mut self.ended
            && let Poll::Ready(status) = Pin::new(ended).poll(context)
        {
            self.ended = None;
            if let Ok(status) = status {
                self.commands.close();
                while self.commands.try_recv().is_ok() {}
                return Poll::Ready(Some(Err(status)));
            }
        }
        let next = std::task::ready!(self.commands.poll_recv(context));
        Poll::Ready(next.map(|outgoing| Ok(convert::message(self.worker, outgoing, &self.wire))))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_empty_names_counts_as_the_memory_that_it_takes() {
        let files = vec![v1::FileEntry::default(); 1_000];
        let scanned = v1::Scanned {
            files,
            ..Default::default()
        };
        let wire = scanned.encoded_len();
        let memory = memory_of_elements(&Up::Scanned(scanned));
        assert!(wire < 3_000 && memory >= 32_000, "{wire} {memory}");
    }
}
