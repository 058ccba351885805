//! An open session: messages of the coordinator to the training thread, and messages of that thread
//! to the coordinator. It decides nothing about training.

use std::time::Duration;

use common::trace::Spans;
use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::worker_message::Message as Up;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Streaming;
use worker_control::{Effect, Report, Session as Control, TrainError};

use super::Ended;
use super::convert;
use super::session::{Session, next, send};
use super::transfer::Transfers;
use crate::error::AgentError;
use crate::trainer::activity::ActivityTracker;
use crate::trainer::link::{Link, Outgoing, SharedInbox};
use crate::trainer::{self, setup::Setup};

/// How long a training thread may take to end when it was told to, and the coordinator to answer a
/// failure.
const ABORT_GRACE: Duration = Duration::from_secs(3);
/// How long the coordinator may take to release a worker that was asked to end.
const DRAIN_GRACE: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the training thread may take to complete its step before its collectives are aborted.
/// A peer that is lost may have given its part, and reported the step.
const LEAVE_GRACE: Duration = Duration::from_millis(100);
const LEAVE_POLL: Duration = Duration::from_millis(5);

/// The training thread, and its connection to the sessions.
pub(super) struct Trainer {
    inbox: SharedInbox,
    pub(super) activity: ActivityTracker,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    end: oneshot::Receiver<Result<(), TrainError>>,
    /// What is wrong with this machine.
    warnings: Vec<String>,
    store: Option<c10d::Store>,
    group: Option<c10d::ProcessGroup>,
    /// An abort that is under way. No order reaches the thread before its end, so that the next
    /// group does not meet while the last one is torn down.
    aborting: Option<JoinHandle<()>>,
}

impl Trainer {
    pub(super) fn start(
        setup: Setup,
        warnings: Vec<String>,
        spans: Option<Spans>,
    ) -> Result<Self, AgentError> {
        let (link, outgoing) = mpsc::unbounded_channel();
        let (ended, end) = oneshot::channel();
        let (inbox, activity) = (SharedInbox::default(), ActivityTracker::default());
        let (orders, tracker) = (inbox.clone(), activity.clone());
        std::thread::Builder::new()
            .name("train".to_owned())
            .spawn(move || {
                let link = Link::new(link);
                let result = trainer::run(&setup, &orders, &link, &tracker, spans.as_ref());
                // It fails if the agent waits no longer: then the process is about to exit.
                let _ = ended.send(result);
            })
            .map_err(|error| AgentError::Training(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            inbox,
            activity,
            outgoing,
            end,
            warnings,
            store: None,
            group: None,
            aborting: None,
        })
    }

    /// Serves a session until the run or the session ends.
    ///
    /// # Errors
    /// [`AgentError::Broken`] when another session may follow.
    pub(super) async fn serve(
        &mut self,
        session: Session,
        asked_to_end: &mut Signal,
    ) -> Result<Ended, AgentError> {
        // Messages that are still queued belong to the last session.
        while let Ok(stale) = self.outgoing.try_recv() {
            self.keep_handle(stale);
        }
        let worker_id = session.registered.worker_id;
        let control = self.inbox.change(Control::open);
        let conversation = Conversation {
            transfers: Transfers::new(session.client, worker_id, session.outbox.clone()),
            outbox: session.outbox,
            trainer: self,
            control,
            finished: None,
            drained_by: None,
            refused: None,
        };
        conversation.run(session.inbound, asked_to_end).await
    }

    /// Keeps the handles by which collectives are aborted, and drops anything else. A group that
    /// is opened after an order to leave is aborted too.
    fn keep_handle(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Store(store) => self.store = Some(store),
            Outgoing::Group(group) => self.group = Some(group),
            _ => return,
        }
        if self.inbox.is_cancelled() {
            self.abort();
        }
    }

    /// Aborts collectives that will not complete.
    fn abort(&mut self) {
        if let Some(store) = self.store.take() {
            store.interrupt();
        }
        if let Some(group) = self.group.take() {
            let before = self.aborting.take();
            let inbox = self.inbox.clone();
            self.aborting = Some(tokio::spawn(async move {
                if let Some(before) = before {
                    let _ = before.await;
                }
                // Until the thread has taken the order to leave.
                let left = async {
                    while inbox.is_cancelled() {
                        tokio::time::sleep(LEAVE_POLL).await;
                    }
                };
                let _ = tokio::time::timeout(LEAVE_GRACE, left).await;
                let abort = tokio::task::spawn_blocking(move || group.abort());
                let _ = tokio::time::timeout(ABORT_GRACE, abort).await;
            }));
        }
    }

    /// The thread has left its group, and the handles are not needed any more. Dropping the last
    /// one ends the group, which may take a while.
    fn release(&mut self) {
        let handles = (self.store.take(), self.group.take());
        drop(tokio::task::spawn_blocking(move || drop(handles)));
    }
}

/// The state of a session.
struct Conversation<'a> {
    trainer: &'a mut Trainer,
    control: Control,
    outbox: mpsc::UnboundedSender<v1::WorkerMessage>,
    transfers: Transfers,
    /// The report `Finished`. It promises that every upload has arrived, so it waits for that.
    finished: Option<Report>,
    drained_by: Option<Instant>,
    /// Why the coordinator does not take this worker, once it has said so.
    refused: Option<String>,
}

impl Conversation<'_> {
    async fn run(
        mut self,
        mut inbound: Streaming<v1::CoordinatorMessage>,
        asked_to_end: &mut Signal,
    ) -> Result<Ended, AgentError> {
        let mut heartbeats = tokio::time::interval(HEARTBEAT);
        let result = loop {
            tokio::select! {
                biased;
                Some(outgoing) = self.trainer.outgoing.recv() => self.pass_on(outgoing),
                result = &mut self.trainer.end => break result,
                settled = self.transfers.settled(), if self.finished.is_some() => {
                    self.finish(settled);
                }
                _ = asked_to_end.recv() => match self.control.asked_to_end() {
                    Effect::Drain => {
                        self.send(Up::Draining(v1::Draining {}));
                        self.drained_by = Some(Instant::now() + DRAIN_GRACE);
                    }
                    _ => {
                        if self.control.is_over() {
                            // It destroys what other threads, and peers, still use.
                            let end = &mut self.trainer.end;
                            let _ = tokio::time::timeout(ABORT_GRACE, end).await;
                        }
                        return Ok(Ended::AskedToEnd);
                    }
                },
                () = at(self.drained_by) => return Ok(Ended::AskedToEnd),
                () = ended(&mut self.trainer.aborting), if self.trainer.aborting.is_some() => {}
                // After its `Shutdown` the coordinator closes the session, which is expected.
                message = next(&mut inbound), if self.reads() => match message {
                    Ok(message) => {
                        let shutdown = self.shutdown(&message);
                        match self.receive(message) {
                            Effect::Exit => {
                                return self.abort_and_exit(shutdown.unwrap_or_default()).await;
                            }
                            Effect::AbortCollectives => self.trainer.abort(),
                            Effect::None | Effect::Drain => {}
                        }
                    }
                    Err(cause) => return self.broken(cause),
                },
                _ = heartbeats.tick() => {
                    self.send(convert::heartbeat(&self.trainer.activity.snapshot()));
                }
            }
        };
        self.end(result, &mut inbound, asked_to_end).await
    }

    fn reads(&self) -> bool {
        !self.control.is_over() && self.trainer.aborting.is_none()
    }

    /// The reason, if the message is the last one.
    fn shutdown(&mut self, message: &Down) -> Option<String> {
        let Down::Shutdown(shutdown) = message else {
            return None;
        };
        let reason = shutdown.reason.clone();
        tracing::info!("the coordinator ended the session: {reason}");
        self.refused = shutdown.refused.then(|| reason.clone());
        Some(reason)
    }

    /// The collectives of this worker will not complete.
    async fn abort_and_exit(self, reason: String) -> Result<Ended, AgentError> {
        self.trainer.abort();
        let _ = tokio::time::timeout(ABORT_GRACE, &mut self.trainer.end).await;
        Err(AgentError::Training(reason))
    }

    fn send(&self, message: Up) {
        send(&self.outbox, message);
    }

    fn receive(&mut self, message: Down) -> Effect {
        match convert::message(message) {
            Ok(Some(message)) => {
                let control = &mut self.control;
                let inbox = &self.trainer.inbox;
                inbox.change(|inbox| control.receive(message, inbox))
            }
            Ok(None) => Effect::None,
            Err(error) => {
                self.send(convert::failure(&TrainError::Internal(error)));
                Effect::None
            }
        }
    }

    fn broken(self, cause: String) -> Result<Ended, AgentError> {
        let ended = self.orderly_end();
        let inbox = &self.trainer.inbox;
        match inbox.change(|inbox| self.control.broken(inbox)) {
            Effect::Exit => Ok(ended),
            _ => {
                self.trainer.abort();
                Err(AgentError::Broken(cause))
            }
        }
    }

    fn pass_on(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Store(_) | Outgoing::Group(_) => self.trainer.keep_handle(outgoing),
            Outgoing::Scanned(scanned) => {
                self.trainer.release();
                self.send(convert::scanned(scanned, &self.trainer.warnings));
            }
            Outgoing::Preparing(done) => self.send(Up::Preparing(v1::Preparing { done })),
            Outgoing::StoreListening {
                generation,
                port,
                host,
            } => self.send(Up::StoreListening(v1::StoreListening {
                generation,
                port: port.into(),
                host: host.unwrap_or_default(),
            })),
            Outgoing::Report(report @ Report::Finished { .. }) => self.finished = Some(report),
            Outgoing::Report(report) => {
                if let Report::GenerationAborted { .. } | Report::GroupBroken { .. } = report {
                    self.trainer.release();
                }
                self.send(convert::report(report));
            }
            Outgoing::Upload(upload) => self.transfers.upload(upload),
            Outgoing::Fetch { blob, reply } => self.transfers.download(blob, reply),
            Outgoing::Images { wanted, reply } => self.transfers.images(wanted, reply),
        }
    }

    fn orderly_end(&self) -> Ended {
        match self.drained_by {
            Some(_) => Ended::AskedToEnd,
            None => Ended::ByCoordinator,
        }
    }

    fn finish(&mut self, settled: Result<(), String>) {
        match (settled, self.finished.take()) {
            (Ok(()), Some(report)) => self.send(convert::report(report)),
            (Err(error), _) => self.send(convert::failure(&TrainError::Internal(error))),
            (Ok(()), None) => {}
        }
    }

    /// The training thread has ended.
    async fn end(
        mut self,
        result: Result<Result<(), TrainError>, oneshot::error::RecvError>,
        inbound: &mut Streaming<v1::CoordinatorMessage>,
        asked_to_end: &mut Signal,
    ) -> Result<Ended, AgentError> {
        while let Ok(outgoing) = self.trainer.outgoing.try_recv() {
            self.pass_on(outgoing);
        }
        let error = match result {
            Ok(Ok(())) => {
                tokio::select! {
                    settled = self.transfers.settled() => match (settled, &self.finished) {
                        (Err(error), None) => tracing::error!("{error}"),
                        (settled, _) => self.finish(settled),
                    },
                    _ = asked_to_end.recv() => return Ok(Ended::AskedToEnd),
                }
                let ended = self.orderly_end();
                return self
                    .refused
                    .map_or(Ok(ended), |why| Err(AgentError::Refused(why)));
            }
            Ok(Err(error)) => error,
            Err(_) => TrainError::Internal("the training thread panicked".to_owned()),
        };
        self.send(convert::failure(&error));
        // Time for the coordinator to read the failure and answer with its `Shutdown`.
        let answer = async {
            while let Ok(message) = next(inbound).await {
                if matches!(message, Down::Shutdown(_)) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ABORT_GRACE, answer).await;
        Err(AgentError::Training(error.to_string()))
    }
}

/// Waits for a task. May be cancelled and called again.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    if let Some(running) = task {
        let _ = running.await;
        *task = None;
    }
}

/// Waits until the deadline; without one, forever.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
