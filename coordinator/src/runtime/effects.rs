//! What the core asks for, done: commands to sessions, facts to recorder and observers, processes.
//! Nothing here waits: what takes time is handed to another task or thread, which answers with an
//! event. It must not decide anything about the run.

use std::collections::{BTreeSet, HashMap, VecDeque};

use coordinator_core::event::{Event, Outcome};
use coordinator_core::{Command, Fact, WorkerId};
use tokio::sync::mpsc;

use super::channels::{NotReading, Outbox, Outgoing};
use crate::launcher::Launcher;
use crate::launcher::shared_cache::CacheFile;
use crate::observe::Observers;
use crate::store::{
    Image, Job, JournalEntry, JournalLine, LargeFile, Recorded, Recorder, RunStore,
};

/// The shared image cache, or why there is none.
pub(super) type Created = Result<CacheFile, String>;

/// Performs the actions of the core for the driver.
pub(super) struct Effects {
    sessions: HashMap<WorkerId, Outbox>,
    cache: Cache,
    caches: mpsc::UnboundedSender<Created>,
    /// Bytes of a decoded image.
    image_bytes: u64,
    pub(super) launcher: Option<Launcher>,
    /// None once the run is over.
    recorder: Option<Recorder>,
    /// Keeps the run directory locked until the process ends.
    closed: Option<RunStore>,
    pub(super) observers: Observers,
    /// Reports of corrupt checkpoints, which may be found again.
    corrupt: BTreeSet<String>,
    /// What follows from what could not be done.
    events: VecDeque<Event>,
}

/// The image cache that local workers share.
enum Cache {
    None,
    /// It is being created; these commands wait for it, in order.
    Creating(Vec<(WorkerId, Command)>),
    Ready(CacheFile),
}

impl Effects {
    /// Also gives the channel on which the shared cache arrives once it is created.
    pub(super) fn new(
        launcher: Option<Launcher>,
        recorder: Recorder,
        observers: Observers,
        image_bytes: u64,
    ) -> (Self, mpsc::UnboundedReceiver<Created>) {
        let (caches, created) = mpsc::unbounded_channel();
        let effects = Self {
            sessions: HashMap::new(),
            cache: Cache::None,
            caches,
            image_bytes,
            launcher,
            recorder: Some(recorder),
            closed: None,
            observers,
            corrupt: BTreeSet::new(),
            events: VecDeque::new(),
        };
        (effects, created)
    }

    /// An event that follows from what could not be done.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn open_session(&mut self, worker: WorkerId, outbox: Outbox) {
        self.sessions.insert(worker, outbox);
    }

    pub(super) fn close_session(&mut self, worker: WorkerId) {
        self.sessions.remove(&worker);
    }

    /// Sends a command, in order with all others to this worker.
    pub(super) fn send(&mut self, worker: WorkerId, command: Command) {
        let needs_cache = matches!(command, Command::Prepare { shared: true, .. });
        match &mut self.cache {
            Cache::None if needs_cache => {
                self.create_cache(&command);
                self.cache = Cache::Creating(vec![(worker, command)]);
            }
            Cache::Creating(waiting)
                if needs_cache || waiting.iter().any(|(of, _)| *of == worker) =>
            {
                // A run that fails meanwhile does not wait for the cache.
                if matches!(command, Command::Shutdown { .. }) {
                    return self.send_now(worker, command);
                }
                waiting.push((worker, command));
            }
            _ => self.send_now(worker, command),
        }
    }

    fn send_now(&mut self, worker: WorkerId, command: Command) {
        let last = matches!(command, Command::Shutdown { .. });
        let cache_file = match (&command, &self.cache) {
            (Command::Prepare { shared: true, .. }, Cache::Ready(cache)) => Some(cache.path()),
            _ => None,
        };
        let outgoing = Outgoing {
            command,
            cache_file,
        };
        // The worker has no session any more.
        let Some(outbox) = self.sessions.get(&worker) else {
            return;
        };
        let sent = outbox.send(outgoing);
        if (last || sent.is_err())
            && let Some(outbox) = self.sessions.remove(&worker)
            && sent == Err(NotReading)
        {
            outbox.evict();
            self.events.push_back(Event::NotReading { worker });
        }
    }

    /// Creates the cache for all images off this task: a file of many GiB may take a while.
    fn create_cache(&self, prepare: &Command) {
        let Command::Prepare { images, .. } = prepare else {
            return;
        };
        let bytes = *images as u64 * self.image_bytes;
        let directory = self.observers.run_dir().to_owned();
        let caches = self.caches.clone();
        tokio::task::spawn_blocking(move || {
            let created = CacheFile::create(bytes, &directory).map_err(|error| {
                let directory = directory.display();
                format!("cannot create the shared image cache in {directory}: {error}")
            });
            // It fails when the run is over.
            let _ = caches.send(created);
        });
    }

    /// The shared cache is there, or cannot be had.
    pub(super) fn cache_created(&mut self, created: Created) -> Option<Event> {
        let cache = match created {
            Ok(cache) => cache,
            Err(error) => {
                self.cache = Cache::None;
                return Some(Event::StoreFailed { error });
            }
        };
        if let Cache::Creating(waiting) = std::mem::replace(&mut self.cache, Cache::Ready(cache)) {
            for (worker, command) in waiting {
                self.send_now(worker, command);
            }
        }
        self.take_event()
    }

    /// Tells recorder and observers.
    pub(super) fn publish(&mut self, fact: Fact) {
        if let Some(job) = Job::of(&fact) {
            self.record(job);
        }
        if let Some(entry) = JournalEntry::of(&fact) {
            self.happened(entry);
        }
        self.observers.apply(fact);
    }

    /// Hands a job to the recorder.
    pub(super) fn record(&mut self, job: Job) {
        let Some(recorder) = &self.recorder else {
            return tracing::debug!("the run is over, and the recorder closed");
        };
        if let Err(error) = recorder.hand_over(job) {
            let error = error.to_string();
            self.events.push_back(Event::StoreFailed { error });
        }
    }

    /// Jobs that the recorder has not done.
    pub(super) fn recorder_queue(&self) -> usize {
        self.recorder.as_ref().map_or(0, Recorder::waiting)
    }

    /// Something happened now: the status shows it at once, the journal keeps it.
    fn happened(&mut self, entry: JournalEntry) {
        let line = JournalLine::now(entry);
        self.record(Job::Event(line.clone()));
        self.observers.happened(line);
    }

    pub(super) fn corrupt_checkpoint(&mut self, reason: &str) {
        if self.corrupt.insert(reason.to_owned()) {
            self.observers.say(reason);
            let reason = reason.to_owned();
            self.happened(JournalEntry::CorruptCheckpoint { reason });
        }
    }

    /// Asks for a process. The launcher answers among its events.
    pub(super) fn launch(&mut self, local_rank: u32) {
        match &mut self.launcher {
            Some(launcher) => launcher.launch(local_rank),
            None => self.events.push_back(Event::LaunchFailed {
                local_rank,
                error: "this coordinator starts no workers (--no-spawn)".to_owned(),
            }),
        }
    }

    /// The recorder has answered.
    pub(super) fn recorded(&mut self, recorded: Recorded) -> Option<Event> {
        match recorded {
            Recorded::Best { epoch } => Some(Event::BestStored { epoch }),
            Recorded::Checkpoint {
                position,
                bytes,
                seconds,
            } => {
                self.happened(JournalEntry::Checkpoint {
                    epoch: position.epoch,
                    completed: position.completed,
                    bytes,
                    seconds,
                });
                self.observers.checkpoint(position, bytes);
                Some(Event::CheckpointStored { position })
            }
            Recorded::Found(newest) => {
                for corrupt in &newest.corrupt {
                    self.corrupt_checkpoint(&corrupt.to_string());
                }
                Some(Event::CheckpointFound {
                    position: newest.checkpoint,
                })
            }
            Recorded::Image { image, at } => {
                if image == Image::Predictions {
                    self.observers.predictions_drawn(at);
                }
                None
            }
            // A run can end without its images.
            Recorded::NoImage { image, reason } => {
                let file = image.file();
                self.observers.say(&format!("no {file}: {reason}"));
                None
            }
            Recorded::Failed(error) => Some(Event::StoreFailed {
                error: error.to_string(),
            }),
            Recorded::Closed(store) => {
                self.closed = Some(store);
                None
            }
        }
    }

    /// Whether the recorder has done all that it was handed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Records the end of the run. Nothing is recorded after it.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        if let Some(render) = self.observers.draw_curves(outcome) {
            self.record(Job::File(LargeFile::Image(Image::Curves, render)));
        }
        self.happened(JournalEntry::ended(outcome));
        self.recorder = None;
    }
}
