//! The one task that owns the run: it feeds the core with what arrives and performs what the
//! core asks for. Nothing else touches run, store or sessions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cache_file::CacheFile;
use crate::convert::{self, Context};
use crate::core::{Action, Command, Event, Outcome, Recipe, Run, WorkerId};
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
    arrivals: mpsc::UnboundedSender<Arrival>,
    storing: Option<JoinHandle<()>>,
    observers: Observers,
    outcome: Option<Outcome>,
}

impl Driver {
    /// A driver of a fresh run by `recipe`; workers are told `settings`. What it does beside its
    /// own task reports to `arrivals`, the sending end of its inputs.
    pub fn new(
        recipe: Recipe,
        settings: v1::Settings,
        observers: Observers,
        arrivals: mpsc::UnboundedSender<Arrival>,
    ) -> Self {
        Self {
            run: Run::new(recipe),
            started: Instant::now(),
            settings,
            sessions: HashMap::new(),
            next_id: 0,
            cache: None,
            arrivals,
            storing: None,
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
                    let event = Event::ProcessExited { slot: exit.slot as u32, status: exit.status.to_string() };
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
                self.sessions.insert(worker, outbox);
                // It fails only when the session has just broken, which arrives as `Lost`.
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
            Arrival::Blob { header, bytes } => self.keep(&header, bytes),
            Arrival::Stored { epoch, result } => self.tell(match result {
                Ok(()) => Event::StateStored { epoch },
                Err(reason) => Event::StoreFailed { reason },
            }),
        }
    }

    /// Only what the core waits for, and only from rank 0, gets into the run directory.
    fn keep(&mut self, header: &v1::BlobHeader, bytes: Vec<u8>) {
        let worker = WorkerId(header.worker_id);
        match header.kind() {
            v1::BlobKind::BestState
                if self
                    .run
                    .awaits_state(worker, header.generation, header.epoch) =>
            {
                self.store_best(header.epoch, bytes, header.sha256.clone());
            }
            v1::BlobKind::Predictions if self.run.awaits_predictions(worker, header.generation) => {
                // A run without its last picture is still a run.
                if let Err(error) = self.observers.predictions(&bytes) {
                    self.observers.say(&format!("no predictions grid: {error}"));
                }
            }
            kind => tracing::debug!(%worker, ?kind, epoch = header.epoch, "ignored a blob"),
        }
    }

    /// Writes off this task, since a slow disk must not hold up the grants; one after the other,
    /// so that the newest weights are written last.
    fn store_best(&mut self, epoch: u32, bytes: Vec<u8>, sha256: Vec<u8>) {
        let upload = self.observers.begin_best();
        let previous = self.storing.take();
        let arrivals = self.arrivals.clone();
        self.storing = Some(tokio::spawn(async move {
            if let Some(previous) = previous {
                // However it ended, it has said so itself.
                let _ = previous.await;
            }
            let written = tokio::task::spawn_blocking(move || {
                let mut upload = upload?;
                upload.write(&bytes)?;
                upload.commit(&sha256)
            });
            let result = match written.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(format!("writing the best weights failed: {error}")),
            };
            // The driver is gone only when the run is over.
            let _ = arrivals.send(Arrival::Stored { epoch, result });
        }));
    }

    fn tell(&mut self, event: Event) {
        for action in self.run.step(self.started.elapsed(), event) {
            match action {
                Action::Send(worker, command) => self.send(worker, command),
                Action::Notify(notice) => self.observers.notice(notice),
                Action::End(outcome) => self.outcome = Some(outcome),
            }
        }
        if let Some(error) = self.observers.take_broken() {
            self.tell(Event::StoreFailed {
                reason: error.to_string(),
            });
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
        let context = Context {
            settings: &self.settings,
            cache_file: self.cache.as_ref().map(CacheFile::path),
        };
        if let Some(outbox) = self.sessions.get(&worker) {
            // As above: a broken session reports itself.
            let _ = outbox.send(Ok(convert::message(worker, command, context)));
        }
    }
}
