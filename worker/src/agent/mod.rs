//! The worker's conversation with its coordinator, over as many sessions as it takes. It owns
//! the session and the training thread's leash; it touches no tensor and decides nothing about
//! training.
//!
//! ```text
//! connect ─▶ welcome ─▶ serve ─▶ shutdown: done
//!    ▲                    │ the session breaks
//!    └── hold the state ◀─┘
//! ```

pub mod activity;
pub(crate) mod address;
pub mod connect;
mod health;
mod preflight;
mod session;
pub mod setup;
mod transfer;

use std::ffi::OsString;
use std::time::Duration;

use common::logging::LogTrace;
use common::trace::{Spans, TraceId};
use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::worker_message::Message as Up;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use self::activity::ActivityTracker;
use self::connect::{Coordinator, ParentPipe};
use self::health::Health;
use self::session::{Identity, Session, next, say};
use self::setup::Setup;
use crate::cli::Cli;
use crate::control::{Inbox, Link, Order, Outgoing};
use crate::error::AgentError;

use self::transfer::Transfers;
use crate::trainer;

/// How long a training thread may take to notice that its group was aborted.
const ABORT_GRACE: Duration = Duration::from_secs(3);
/// How long the coordinator may take to let a worker go that was asked to end.
const DRAIN_GRACE: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Joins the run at `cli.coordinator` and trains until it ends, also when the coordinator is
/// gone for a while. From then on `logs` carry the trace of that run.
///
/// # Errors
/// When the coordinator cannot be reached, refuses, or stays away, and when training fails.
pub async fn run(cli: Cli, logs: &LogTrace) -> Result<(), AgentError> {
    let local_rank = local_rank(std::env::var_os(proto::LOCAL_RANK_VARIABLE))?;
    let who = Identity::new(local_rank)
        .map_err(|error| AgentError::Training(format!("cannot draw an id: {error}")))?;
    let health = Health::start(cli.health_file.as_deref())
        .map_err(|error| AgentError::Usage(format!("cannot write --health-file: {error}")))?;
    let mut asked_to_end = signal(SignalKind::terminate())
        .map_err(|error| AgentError::Training(format!("cannot watch for signals: {error}")))?;
    let patience = Duration::from_secs(cli.connect_timeout);
    let mut parent = local_rank.map(|_| ParentPipe::of_process());
    let coordinator = Coordinator::of(&cli)?;
    let first = tokio::select! {
        first = session::open(&coordinator, who, patience) => first?,
        () = ParentPipe::closed(&mut parent) => {
            let cause = "the coordinator that started this worker is gone".to_owned();
            return Err(AgentError::Broken(cause));
        }
        _ = asked_to_end.recv() => return Ok(()),
    };
    let run_id = first.registered.run_id.clone();
    let trace = TraceId::of_run(&run_id);
    logs.set(trace);
    tracing::info!("joined run {run_id}, trace {trace}");
    let setup = Setup::of(&cli, &coordinator, &first.client, &first.registered).await?;
    let endpoint = &setup.settings.otlp_endpoint;
    let spans = Spans::start(endpoint, "finetune-worker", trace);
    let trainer = Trainer::start(setup, &run_id, spans.clone())?;
    let ended = stay(
        trainer,
        first,
        &coordinator,
        who,
        &health,
        &mut asked_to_end,
    )
    .await;
    if let Some(spans) = spans {
        spans.finish().await;
    }
    ended
}

/// The local rank that the coordinator gave this process; none when a user started it.
fn local_rank(variable: Option<OsString>) -> Result<Option<u32>, AgentError> {
    let Some(value) = variable else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        AgentError::Usage(format!(
            "{} is {value:?}, which is no local rank; only a coordinator sets it, for the workers \
             that it starts: unset it",
            proto::LOCAL_RANK_VARIABLE
        ))
    })
}

/// Serves one session after another until the run ends.
async fn stay(
    mut trainer: Trainer,
    mut session: Session,
    coordinator: &Coordinator,
    who: Identity,
    health: &Health,
    asked_to_end: &mut Signal,
) -> Result<(), AgentError> {
    loop {
        health.set(health::State::Joined(trainer.place.clone()));
        match trainer.serve(session, asked_to_end).await {
            Err(AgentError::Broken(cause)) => {
                let seconds = trainer.hold.as_secs();
                tracing::warn!(cause, seconds, "the session broke; holding the state");
                health.set(health::State::Holding);
                trainer.let_go().await;
            }
            ended => return ended,
        }
        session = tokio::select! {
            session = session::open(coordinator, who, trainer.hold) => session?,
            _ = asked_to_end.recv() => return Ok(()),
        };
        if session.registered.run_id != trainer.run_id {
            let message = "another run is at this address; a fresh worker can join it";
            return Err(AgentError::Refused(message.to_owned()));
        }
        tracing::info!("back in the run");
    }
}

/// The training thread and what connects it with the sessions.
struct Trainer {
    inbox: Inbox,
    place: ActivityTracker,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    end: oneshot::Receiver<Result<(), v1::Failure>>,
    run_id: String,
    hold: Duration,
    store: Option<c10d::Store>,
    group: Option<c10d::ProcessGroup>,
    /// The thread was told to leave its group, and has not said that it did: what it still
    /// opens is broken at once.
    halting: bool,
}

impl Trainer {
    fn start(setup: Setup, run_id: &str, spans: Option<Spans>) -> Result<Self, AgentError> {
        let hold = Duration::from_secs(setup.settings.hold_timeout_seconds.into());
        let (link, outgoing) = mpsc::unbounded_channel();
        let (ended, end) = oneshot::channel();
        let (inbox, place) = (Inbox::default(), ActivityTracker::default());
        let (orders, activity) = (inbox.clone(), place.clone());
        std::thread::Builder::new()
            .name("train".to_owned())
            .spawn(move || {
                let link = Link::new(link);
                let result = trainer::run(&setup, &orders, &link, &activity, spans.as_ref());
                // The agent may have given up waiting: then the process is about to exit.
                let _ = ended.send(result);
            })
            .map_err(|error| AgentError::Training(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            inbox,
            place,
            outgoing,
            end,
            run_id: run_id.to_owned(),
            hold,
            store: None,
            group: None,
            halting: false,
        })
    }

    /// Carries orders and messages until the run or the session ends.
    async fn serve(
        &mut self,
        session: Session,
        asked_to_end: &mut Signal,
    ) -> Result<(), AgentError> {
        let Session {
            client,
            outbox,
            mut inbound,
            registered,
        } = session;
        let mut transfers = Transfers::new(client, registered.worker_id, outbox.clone());
        // What it still says belongs to the last session.
        while let Ok(stale) = self.outgoing.try_recv() {
            if let Outgoing::Store(_) | Outgoing::Group(_) = stale {
                self.pass_on(stale, &outbox, &mut transfers).await;
            }
        }
        self.inbox.push(Order::Scan);
        let mut heartbeats = tokio::time::interval(HEARTBEAT);
        let mut over = false;
        let mut draining = None;
        let result = loop {
            let gone = async {
                match draining {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(outgoing) = self.outgoing.recv() => {
                    self.pass_on(outgoing, &outbox, &mut transfers).await;
                }
                result = &mut self.end => break result,
                _ = asked_to_end.recv() => {
                    if over || draining.is_some() {
                        return Ok(());
                    }
                    say(&outbox, Up::Draining(v1::Draining {}));
                    draining = Some(tokio::time::Instant::now() + DRAIN_GRACE);
                }
                () = gone => return Ok(()),
                // After a polite shutdown the coordinator hangs up, which is no news.
                message = next(&mut inbound), if !over => match message {
                    Ok(Down::Shutdown(shutdown)) => {
                        over = true;
                        self.inbox.push(Order::Shutdown(shutdown.clone()));
                        if shutdown.abort {
                            self.abort().await;
                            let _ = tokio::time::timeout(ABORT_GRACE, &mut self.end).await;
                            return Err(AgentError::Training(shutdown.reason));
                        }
                    }
                    Ok(message) => self.take(message).await,
                    Err(_) if draining.is_some() => return Ok(()),
                    Err(cause) => return Err(AgentError::Broken(cause)),
                },
                _ = heartbeats.tick() => {
                    say(&outbox, Up::Heartbeat(self.place.heartbeat()));
                }
            }
        };
        while let Ok(outgoing) = self.outgoing.try_recv() {
            self.pass_on(outgoing, &outbox, &mut transfers).await;
        }
        if let Err(error) = transfers.settle().await {
            tracing::error!(error);
        }
        let failure = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(_) => v1::Failure {
                kind: v1::FailureKind::Internal.into(),
                message: "the training thread panicked".to_owned(),
            },
        };
        let message = failure.message.clone();
        say(&outbox, Up::Failure(failure));
        // A moment for the coordinator to read the last words and answer with its shutdown.
        let farewell = async {
            while let Ok(message) = next(&mut inbound).await {
                if matches!(message, Down::Shutdown(_)) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ABORT_GRACE, farewell).await;
        Err(AgentError::Training(message))
    }

    async fn take(&mut self, message: Down) {
        let order = match message {
            Down::Registered(_) | Down::Shutdown(_) => return,
            Down::StepGrant(grant) => return self.inbox.grant(&grant),
            Down::Prepare(order) => Order::Prepare(order),
            Down::Assignment(order) => Order::Assign(order),
            Down::EpochPlan(order) => Order::Plan(order),
            Down::EpochResult(order) => Order::EpochResult(order),
            Down::SaveState(order) => Order::SaveState(order),
            Down::Finish(order) => Order::Finish(order),
            Down::AbortGeneration(order) => {
                // Before the abort, so that the thread finds it when its collective breaks.
                self.inbox.push(Order::AbortGeneration(order));
                return self.abort().await;
            }
        };
        self.inbox.push(order);
    }

    async fn pass_on(
        &mut self,
        outgoing: Outgoing,
        outbox: &mpsc::UnboundedSender<v1::WorkerMessage>,
        transfers: &mut Transfers,
    ) {
        let failed = |message| {
            let kind = v1::FailureKind::Internal.into();
            say(outbox, Up::Failure(v1::Failure { kind, message }));
        };
        match outgoing {
            Outgoing::Store(store) => {
                self.store = Some(store);
                if self.halting {
                    self.abort().await;
                }
            }
            Outgoing::Group(group) => {
                self.group = Some(group);
                if self.halting {
                    self.abort().await;
                }
            }
            Outgoing::Message(message @ (Up::GenerationAborted(_) | Up::Scanned(_))) => {
                self.halting = false;
                say(outbox, message);
            }
            // "Finished" promises that everything is with the coordinator.
            Outgoing::Message(message @ Up::Finished(_)) => match transfers.settle().await {
                Ok(()) => say(outbox, message),
                Err(message) => failed(message),
            },
            Outgoing::Message(message) => say(outbox, message),
            Outgoing::Upload { label, bytes } => transfers.upload(label, bytes),
            Outgoing::Fetch { request, reply } => transfers.download(request, reply),
            Outgoing::Images { wanted, reply } => transfers.images(wanted, reply),
        }
    }

    /// Leaves whatever the thread is in; it keeps its state.
    async fn let_go(&mut self) {
        self.inbox
            .push(Order::AbortGeneration(v1::AbortGeneration::default()));
        self.abort().await;
    }

    /// Breaks collectives that will not complete, from outside of them.
    async fn abort(&mut self) {
        self.halting = true;
        if let Some(store) = self.store.take() {
            store.interrupt();
        }
        if let Some(group) = self.group.take() {
            let abort = tokio::task::spawn_blocking(move || group.abort());
            let _ = tokio::time::timeout(ABORT_GRACE, abort).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_local_rank_is_a_number_or_absent() {
        assert_eq!(local_rank(None).unwrap(), None);
        assert_eq!(local_rank(Some("3".into())).unwrap(), Some(3));
        let unreadable = OsString::from_vec(vec![0xff]);
        for wrong in ["".into(), "-1".into(), "three".into(), unreadable] {
            let refused = local_rank(Some(wrong)).unwrap_err().to_string();
            assert!(refused.contains("FINETUNE_LOCAL_RANK"), "{refused}");
        }
    }
}
