//! The one task that owns the run: it feeds the core with what arrives, and has [`Effects`] do
//! what the core asks for. It never waits for a disk, a process or a worker. Nothing else touches
//! the run.

use std::time::{Duration, Instant};

use coordinator_core::event::{Event, Outcome};
use coordinator_core::{Action, Run, WorkerId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::channels::Inbox;
use super::effects::{Created, Effects};
use super::input::{DriverInput, Upload};
use crate::launcher::{Launcher, LauncherEvent};
use crate::observe::Observers;
use crate::observe::metrics::Metrics;
use crate::store::{Image, Job, LargeFile, Recorded, Recorder, RecorderError};

const TICK: Duration = Duration::from_millis(200);

/// Everything that reaches the driver from outside, each kind in a channel of its own, so that no
/// flood of messages keeps a signal, an exit or the recorder's answer waiting.
pub struct Inputs {
    /// From sessions and transfers.
    pub inbox: Inbox,
    /// From the launcher: processes that started, could not be started, or ended.
    pub processes: mpsc::UnboundedReceiver<LauncherEvent>,
    /// From the recorder.
    pub recorded: mpsc::UnboundedReceiver<Recorded>,
    /// From the terminal: stop at the next step boundary.
    pub interrupts: mpsc::UnboundedReceiver<()>,
}

/// One thing that the driver deals with.
enum Input {
    Session(DriverInput),
    Process(LauncherEvent),
    Recorded(Recorded),
    Cache(Created),
    Event(Event),
}

/// The owner of a run.
pub struct Driver {
    run: Run,
    started: Instant,
    next_worker: u64,
    effects: Effects,
    caches: mpsc::UnboundedReceiver<Created>,
    metrics: Metrics,
    /// Inputs, but for ticks, that the metrics do not show yet.
    taken: u64,
    /// Of a run that is over.
    outcome: Option<Outcome>,
}

impl Driver {
    /// A driver of `run`. Without a launcher, workers are started elsewhere. A decoded image has
    /// `image_bytes` bytes.
    pub fn new(
        run: Run,
        launcher: Option<Launcher>,
        recorder: Recorder,
        observers: Observers,
        image_bytes: u64,
        metrics: Metrics,
    ) -> Self {
        let (effects, caches) = Effects::new(launcher, recorder, observers, image_bytes);
        Self {
            run,
            started: Instant::now(),
            next_worker: 0,
            effects,
            caches,
            metrics,
            taken: 0,
            outcome: None,
        }
    }

    /// Reports checkpoints that were found to be corrupt when the run was opened.
    pub fn report_corrupt(&mut self, checkpoints: &[String]) {
        for checkpoint in checkpoints {
            self.effects.corrupt_checkpoint(checkpoint);
        }
    }

    /// Drives the run to its end.
    pub async fn drive(&mut self, inputs: &mut Inputs) -> Outcome {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            let input = tokio::select! {
                // The start of a process is known before the worker in it registers.
                biased;
                Some(()) = inputs.interrupts.recv() => Input::Event(Event::Interrupt),
                Some(event) = inputs.processes.recv() => Input::Process(event),
                Some(recorded) = inputs.recorded.recv() => Input::Recorded(recorded),
                Some(cache) = self.caches.recv() => Input::Cache(cache),
                _ = ticks.tick() => Input::Event(Event::Tick),
                Some(input) = inputs.inbox.recv() => Input::Session(input),
            };
            let began = Instant::now();
            let ticks = matches!(input, Input::Event(Event::Tick));
            if ticks {
                self.catch_up(inputs);
            }
            self.take(input);
            if ticks {
                let (joined, healthy) = self.run.census();
                self.effects.observers.tick(joined, healthy);
                self.metrics.recording(self.effects.recorder_queue());
            }
            let (taken, waiting) = (std::mem::take(&mut self.taken), inputs.inbox.len());
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.drove(taken, seconds, waiting);
        }
    }

    /// The local processes, which may outlive the run.
    pub fn launcher(&mut self) -> Option<&mut Launcher> {
        self.effects.launcher.as_mut()
    }

    /// What observes the run.
    pub fn observers(&mut self) -> &mut Observers {
        &mut self.effects.observers
    }

    /// Records how the run ended and waits until everything is durable.
    ///
    /// # Errors
    /// The first thing that could not be written, in words.
    pub async fn flush(
        &mut self,
        outcome: &Outcome,
        recorded: &mut mpsc::UnboundedReceiver<Recorded>,
    ) -> Result<(), String> {
        self.effects.end(outcome);
        let mut first = Ok(());
        let mut look = |event: Option<Event>| {
            if let Some(Event::StoreFailed { error }) = event
                && first.is_ok()
            {
                first = Err(error);
            }
        };
        look(self.effects.take_event());
        while let Some(recorded) = recorded.recv().await {
            look(self.effects.recorded(recorded));
        }
        match self.effects.is_closed() {
            true => first,
            false => first.and(Err(RecorderError::Gone.to_string())),
        }
    }

    /// Processes the queued inputs before a tick, at which the core looks for silent workers.
    fn catch_up(&mut self, inputs: &mut Inputs) {
        for _ in 0..inputs.inbox.len() {
            if self.outcome.is_some() {
                return;
            }
            while let Ok(event) = inputs.processes.try_recv() {
                self.take(Input::Process(event));
            }
            if let Some(input) = inputs.inbox.try_recv() {
                self.take(Input::Session(input));
            }
        }
    }

    fn take(&mut self, input: Input) {
        self.taken += u64::from(!matches!(input, Input::Event(Event::Tick)));
        let event = match input {
            Input::Session(input) => self.session(input),
            Input::Process(event) => self.process(event),
            Input::Recorded(recorded) => self.effects.recorded(recorded),
            Input::Cache(cache) => self.effects.cache_created(cache),
            Input::Event(event) => Some(event),
        };
        if let Some(event) = event {
            self.step(event);
        }
    }

    /// One event of the core, and whatever follows from it.
    fn step(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next {
            for action in self.run.step(self.started.elapsed(), event) {
                match action {
                    Action::Send(worker, command) => self.effects.send(worker, command),
                    Action::Notify(fact) => self.effects.publish(fact),
                    Action::Launch { local_rank } => self.effects.launch(local_rank),
                    Action::FindCheckpoint => self.effects.record(Job::FindCheckpoint),
                    Action::End(outcome) => self.outcome = Some(outcome),
                }
            }
            next = self.effects.take_event();
        }
    }

    fn session(&mut self, input: DriverInput) -> Option<Event> {
        match input {
            DriverInput::Register {
                registration,
                outbox,
                reply,
            } => {
                let worker = WorkerId(self.next_worker);
                self.next_worker += 1;
                self.effects.open_session(worker, outbox);
                // It fails only when the end of the run closes the server.
                let _ = reply.send(worker);
                Some(Event::Joined {
                    worker,
                    host: registration.host,
                    pid: registration.pid,
                    instance: registration.instance,
                    local_rank: registration.local_rank,
                })
            }
            DriverInput::Event(event) => {
                match event {
                    Event::Lost { worker } => self.effects.close_session(worker),
                    Event::Heartbeat { worker, .. } => self.effects.observers.heard(worker),
                    _ => {}
                }
                Some(event)
            }
            DriverInput::Upload { worker, upload } => {
                self.keep(worker, upload);
                None
            }
            DriverInput::Download { worker, reply } => {
                // It fails when the worker is gone.
                let _ = reply.send(self.run.is_member(worker));
                None
            }
        }
    }

    /// Only what the core waits for, from the worker that it waits for, gets into the run
    /// directory.
    fn keep(&mut self, worker: WorkerId, upload: Upload) {
        match upload {
            Upload::Best { epoch, weights } if self.run.awaits_best(worker, epoch) => {
                self.effects
                    .record(Job::File(LargeFile::Best { epoch, weights }));
            }
            Upload::Checkpoint { position, state } if self.run.awaits_checkpoint(worker) => {
                self.effects
                    .record(Job::File(LargeFile::Checkpoint { position, state }));
            }
            Upload::Predictions(predictions) if self.run.awaits_predictions(worker) => {
                let render = self.effects.observers.draw_predictions(predictions);
                self.effects
                    .record(Job::File(LargeFile::Image(Image::Predictions, render)));
            }
            upload => tracing::debug!(%worker, ?upload, "ignored an upload that was not asked for"),
        }
    }

    fn process(&mut self, event: LauncherEvent) -> Option<Event> {
        Some(match event {
            LauncherEvent::Started { local_rank, pid } => {
                self.effects.observers.started(local_rank);
                Event::ProcessStarted { local_rank, pid }
            }
            LauncherEvent::Failed { local_rank, error } => Event::LaunchFailed {
                local_rank,
                error: error.to_string(),
            },
            LauncherEvent::Exited(exit) => {
                let event = Event::ProcessExited {
                    local_rank: exit.local_rank,
                    pid: exit.pid,
                    status: exit.status,
                };
                // The core asked for the end of one that had to be stopped.
                let news = !exit.stopped;
                self.effects.observers.exited(exit);
                return news.then_some(event);
            }
        })
    }
}
