//! The one task that owns the run: it feeds the core with what arrives and performs what the
//! core asks for. Nothing else touches run, store or sessions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proto::v1;
use tokio::sync::mpsc;
use v1::coordinator_message::Message as Down;

use crate::cache_file::CacheFile;
use crate::convert;
use crate::core::{Action, Command, Event, Outcome, Recipe, Run, RunError, WorkerId};
use crate::launcher::WorkerExit;
use crate::observe::Observers;
use crate::service::{Arrival, Outbox};

const TICK: Duration = Duration::from_millis(200);

/// Everything that reaches the driver from outside.
pub struct Inputs {
    /// From the gRPC edge.
    pub arrivals: mpsc::UnboundedReceiver<Arrival>,
    /// From the launcher: processes that ended.
    pub exits: mpsc::UnboundedReceiver<WorkerExit>,
    /// From the terminal: stop at the next step boundary.
    pub interrupts: mpsc::UnboundedReceiver<()>,
}

/// The owner of a run.
pub struct Driver {
    run: Run,
    started: Instant,
    settings: v1::Settings,
    sessions: HashMap<WorkerId, Outbox>,
    next_id: u64,
    cache: Option<CacheFile>,
    observers: Observers,
    outcome: Option<Outcome>,
}

impl Driver {
    /// A driver of a fresh run by `recipe`; workers are told `settings`.
    pub fn new(recipe: Recipe, settings: v1::Settings, observers: Observers) -> Self {
        Self {
            run: Run::new(recipe),
            started: Instant::now(),
            settings,
            sessions: HashMap::new(),
            next_id: 0,
            cache: None,
            observers,
            outcome: None,
        }
    }

    /// Drives the run to its end and gives back how it ended, and what observed it.
    pub async fn drive(mut self, inputs: &mut Inputs) -> (Outcome, Observers) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return (outcome, self.observers);
            }
            tokio::select! {
                Some(arrival) = inputs.arrivals.recv() => self.arrive(arrival),
                Some(exit) = inputs.exits.recv() => {
                    let event = Event::ExitedEarly { slot: exit.slot as u32, status: exit.status.to_string() };
                    self.observers.exited(exit);
                    self.tell(event);
                }
                Some(()) = inputs.interrupts.recv() => self.tell(Event::Interrupt),
                _ = ticks.tick() => self.tell(Event::Tick),
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Worker {
                hello,
                outbox,
                reply,
            } => {
                let worker = WorkerId(self.next_id);
                self.next_id += 1;
                let welcome = v1::Welcome {
                    worker_id: worker.0,
                    settings: Some(self.settings.clone()),
                };
                // A send fails only when the session has just broken, which arrives as `Lost`.
                let _ = outbox.send(Ok(v1::CoordinatorMessage {
                    message: Some(Down::Welcome(welcome)),
                }));
                self.sessions.insert(worker, outbox);
                let _ = reply.send(worker);
                self.tell(Event::Joined {
                    worker,
                    host: hello.host,
                    slot: hello.slot,
                });
            }
            Arrival::Event(event) => {
                if let Event::Lost { worker } = event {
                    self.sessions.remove(&worker);
                }
                self.tell(event);
            }
            Arrival::Blob { header, bytes } => match self.observers.blob(&header, &bytes) {
                Ok(()) if header.kind() == v1::BlobKind::BestState => {
                    self.tell(Event::StateStored {
                        epoch: header.epoch,
                    });
                }
                Ok(()) => {}
                Err(error) if header.kind() == v1::BlobKind::BestState => {
                    self.observers.broken(error);
                }
                // A run without its last picture is still a run.
                Err(error) => self.observers.say(&format!("no predictions grid: {error}")),
            },
        }
    }

    fn tell(&mut self, event: Event) {
        for action in self.run.step(self.started.elapsed(), event) {
            match action {
                Action::Send(worker, command) => self.send(worker, command),
                Action::Notify(notice) => self.observers.notice(notice),
                Action::End(outcome) => self.outcome = Some(outcome),
            }
        }
        if self.outcome.is_none()
            && let Some(error) = self.observers.take_broken()
        {
            let reason = error.to_string();
            for outbox in self.sessions.values() {
                let shutdown = Command::Shutdown {
                    reason: reason.clone(),
                    abort: true,
                };
                let _ = outbox.send(Ok(convert::message(shutdown, None)));
            }
            self.outcome = Some(Err(RunError::RunDirectory(reason)));
        }
    }

    fn send(&mut self, worker: WorkerId, command: Command) {
        if let Command::Prepare {
            images,
            shared: true,
            ..
        } = command
            && self.cache.is_none()
        {
            let bytes = images as u64 * u64::from(self.settings.image_size).pow(2) * 3;
            match CacheFile::create(bytes, self.observers.run_dir()) {
                Ok(cache) => self.cache = Some(cache),
                Err(error) => return self.observers.broken(error.into()),
            }
        }
        let path = self.cache.as_ref().map(CacheFile::path);
        if let Some(outbox) = self.sessions.get(&worker) {
            let _ = outbox.send(Ok(convert::message(command, path.as_deref())));
        }
    }
}
