//! The one task that owns the run: it feeds the core with what arrives and performs what the
//! core asks for. Nothing else touches run, store, sessions or processes.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::v1;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::launcher::shared_cache::CacheFile;
use crate::launcher::{Launcher, LauncherEvent, WorkerExit, WorkerStatus};
use crate::net::clock::unix_seconds;
use crate::observe::Observers;
use crate::observe::metrics::Traffic;
use crate::rpc::admission::Permit;
use crate::rpc::convert::{self, Context};
use crate::runtime::input::{DriverInput, Kept, Outbox};
use crate::runtime::keeper::CheckpointWriter;
use crate::store::BEST_WEIGHTS;
use coordinator_core::event::{Position, ProcessStatus};
use coordinator_core::{Action, Command, Event, Fact, Outcome, Run, WorkerId};

const TICK: Duration = Duration::from_millis(200);

/// Everything that reaches the driver from outside.
pub struct Inputs {
    /// From the gRPC edge and the keeper.
    pub arrivals: mpsc::UnboundedReceiver<DriverInput>,
    /// From the launcher: processes that started, could not be started, or ended.
    pub processes: mpsc::UnboundedReceiver<LauncherEvent>,
    /// From the terminal: stop at the next step boundary.
    pub interrupts: mpsc::UnboundedReceiver<()>,
}

/// One thing that the driver deals with.
enum Input {
    DriverInput(DriverInput),
    Process(LauncherEvent),
    Event(Event),
}

/// The owner of a run.
pub struct Driver {
    run: Run,
    run_id: String,
    settings: v1::Settings,
    started: Instant,
    sessions: HashMap<WorkerId, Outbox>,
    next_id: u64,
    cache: Option<CacheFile>,
    launcher: Option<Launcher>,
    keeper: CheckpointWriter,
    observers: Observers,
    traffic: Traffic,
    outcome: Option<Outcome>,
}

impl Driver {
    /// A driver of `run`; workers are told `settings`. Without a launcher others start them.
    pub fn new(
        run: Run,
        run_id: String,
        settings: v1::Settings,
        launcher: Option<Launcher>,
        keeper: CheckpointWriter,
        observers: Observers,
        traffic: Traffic,
    ) -> Self {
        Self {
            run,
            run_id,
            settings,
            started: Instant::now(),
            sessions: HashMap::new(),
            next_id: 0,
            cache: None,
            launcher,
            keeper,
            observers,
            traffic,
            outcome: None,
        }
    }

    /// Drives the run to its end and gives back how it ended, the processes that may still run,
    /// and what observed it.
    pub async fn drive(mut self, inputs: &mut Inputs) -> (Outcome, Option<Launcher>, Observers) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return (outcome, self.launcher, self.observers);
            }
            let input = tokio::select! {
                // The start of a process is known before the worker in it registers.
                biased;
                Some(()) = inputs.interrupts.recv() => Input::Event(Event::Interrupt),
                Some(event) = inputs.processes.recv() => Input::Process(event),
                _ = ticks.tick() => Input::Event(Event::Tick),
                Some(arrival) = inputs.arrivals.recv() => Input::DriverInput(arrival),
            };
            let began = Instant::now();
            let ticks = matches!(input, Input::Event(Event::Tick));
            if ticks {
                self.catch_up(inputs);
            }
            self.take(input);
            if ticks {
                let (joined, healthy) = self.run.census();
                self.observers.census(joined, healthy);
            }
            let waiting = inputs.arrivals.len();
            self.traffic.drove(began.elapsed().as_secs_f64(), waiting);
        }
    }

    /// Takes what has arrived before a tick, which looks who has been silent for too long.
    fn catch_up(&mut self, inputs: &mut Inputs) {
        for _ in 0..inputs.arrivals.len() {
            if self.outcome.is_some() {
                return;
            }
            while let Ok(event) = inputs.processes.try_recv() {
                self.take(Input::Process(event));
            }
            if let Ok(arrival) = inputs.arrivals.try_recv() {
                self.take(Input::DriverInput(arrival));
            }
        }
    }

    fn take(&mut self, input: Input) {
        let event = match input {
            Input::DriverInput(arrival) => self.arrive(arrival),
            Input::Process(event) => Some(self.process(event)),
            Input::Event(event) => Some(event),
        };
        if let Some(event) = event {
            self.tell(event);
        }
    }

    fn process(&mut self, event: LauncherEvent) -> Event {
        match event {
            LauncherEvent::Started { local_rank, pid } => Event::ProcessStarted {
                local_rank: local_rank as u32,
                pid,
            },
            LauncherEvent::Failed { local_rank, error } => Event::LaunchFailed {
                local_rank: local_rank as u32,
                error: error.to_string(),
            },
            LauncherEvent::Exited(exit) => self.exited(exit),
        }
    }

    fn exited(&mut self, exit: WorkerExit) -> Event {
        let event = Event::ProcessExited {
            local_rank: exit.local_rank as u32,
            pid: exit.pid,
            status: match exit.status {
                WorkerStatus::Code(code) => ProcessStatus::Code(code),
                WorkerStatus::Signal(signal) => ProcessStatus::Signal(signal),
                WorkerStatus::Unknown => ProcessStatus::Unknown,
            },
        };
        self.observers.exited(exit);
        event
    }

    fn arrive(&mut self, arrival: DriverInput) -> Option<Event> {
        match arrival {
            DriverInput::Worker {
                register,
                outbox,
                reply,
            } => {
                let worker = WorkerId(self.next_id);
                self.next_id += 1;
                self.sessions.insert(worker, outbox);
                // It fails only when the run's end closes the edge.
                let _ = reply.send(worker);
                Some(Event::Joined {
                    worker,
                    host: register.host,
                    pid: register.pid,
                    instance: register.instance,
                    local_rank: register.local_rank,
                })
            }
            DriverInput::Event(event) => {
                match event {
                    Event::Lost { worker } => drop(self.sessions.remove(&worker)),
                    Event::Heartbeat { worker, .. } => self.observers.heard(worker),
                    _ => {}
                }
                Some(event)
            }
            DriverInput::Blob {
                header,
                bytes,
                place,
            } => {
                self.keep(&header, bytes, place);
                None
            }
            DriverInput::Download { request, reply } => {
                // It fails when the asker is gone.
                let _ = reply.send(self.download(&request));
                None
            }
            DriverInput::Kept(kept) => Some(self.kept(kept)),
        }
    }

    /// Only what the core waits for, from whom it waits for it, gets into the run directory.
    fn keep(&mut self, header: &v1::BlobHeader, bytes: Vec<u8>, place: Permit) {
        let worker = WorkerId(header.worker_id);
        match header.kind() {
            v1::BlobKind::BestState if self.run.awaits_best(worker, header.epoch) => {
                let upload = self.observers.begin_best();
                let sha256 = header.sha256.clone();
                self.keeper
                    .best(header.epoch, upload, (bytes, place), sha256);
            }
            v1::BlobKind::Checkpoint if self.run.awaits_checkpoint(worker) => {
                let position = Position {
                    epoch: header.epoch,
                    completed: header.completed,
                };
                self.keeper
                    .checkpoint(position, (bytes, place), header.sha256.clone());
            }
            v1::BlobKind::Predictions if self.run.awaits_predictions(worker) => {
                // A run without its last picture is still a run.
                if let Err(error) = self.observers.predictions(&bytes) {
                    self.observers.say(&format!("no predictions grid: {error}"));
                }
            }
            kind => tracing::debug!(%worker, ?kind, epoch = header.epoch, "ignored a blob"),
        }
    }

    fn download(&self, request: &v1::DownloadRequest) -> Result<PathBuf, Status> {
        if !self.run.is_member(WorkerId(request.worker_id)) {
            return Err(Status::permission_denied("not a worker of this run"));
        }
        match (request.kind(), request.position) {
            (v1::BlobKind::BestState, _) => Ok(self.observers.run_dir().join(BEST_WEIGHTS)),
            (v1::BlobKind::Checkpoint, Some(position)) => {
                Ok(self.keeper.state_path(convert::position(position)))
            }
            _ => Err(Status::invalid_argument("no such blob")),
        }
    }

    fn kept(&mut self, kept: Kept) -> Event {
        match kept {
            Kept::Best { epoch, result } => match result {
                Ok(()) => Event::BestStored { epoch },
                Err(error) => Event::StoreFailed { error },
            },
            Kept::Checkpoint {
                position,
                bytes,
                seconds,
                result,
            } => match result {
                Ok(()) => {
                    self.observers.checkpoint(position, bytes, seconds);
                    Event::CheckpointStored { position }
                }
                Err(error) => Event::StoreFailed { error },
            },
            Kept::Newest(Ok(newest)) => {
                for corrupt in &newest.corrupt {
                    self.observers.corrupt(&corrupt.to_string());
                }
                let position = newest.checkpoint.map(|whole| whole.position);
                Event::CheckpointFound { position }
            }
            Kept::Newest(Err(error)) | Kept::Failed(error) => Event::StoreFailed { error },
        }
    }

    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.run.step(self.started.elapsed(), event) {
                match action {
                    Action::Send(worker, command) => self.send(worker, command),
                    Action::Notify(notice) => {
                        if let Fact::RolledBack { position, .. } = notice {
                            self.keeper.discard_after(position);
                        }
                        self.observers.notice(notice);
                    }
                    Action::Launch { local_rank } => {
                        events.extend(self.launch(local_rank));
                    }
                    Action::FindCheckpoint => self.keeper.find(),
                    Action::End(outcome) => self.outcome = Some(outcome),
                }
            }
            if let Some(error) = self.observers.take_broken() {
                let error = error.to_string();
                events.push_back(Event::StoreFailed { error });
            }
        }
    }

    /// Asks for a process. The launcher answers among its events.
    fn launch(&mut self, local_rank: u32) -> Option<Event> {
        let Some(launcher) = &mut self.launcher else {
            let error = "this coordinator starts no workers (--no-spawn)".to_owned();
            return Some(Event::LaunchFailed { local_rank, error });
        };
        launcher.launch(local_rank as usize);
        None
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
            run_id: &self.run_id,
            cache_file: self.cache.as_ref().map(CacheFile::path),
            unix_seconds: unix_seconds(),
        };
        let last = matches!(command, Command::Shutdown { .. });
        if let Some(outbox) = self.sessions.get(&worker) {
            outbox.send(convert::message(worker, command, context));
        }
        if last {
            self.sessions.remove(&worker);
        }
    }
}
