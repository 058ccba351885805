//! The one task that makes things durable, on an operating system thread of its own, so that
//! nothing that trains waits for the disk. It owns the run directory during a run:
//! journal, split, records of epochs, best weights, checkpoints and images. It must not decide
//! what is kept; it does what it is handed, in that order.
//!
//! **Durability.** A job begins when all jobs before it are durable (journal lines that follow
//! each other share one sync). So what is on the disk at any moment, also after a crash or a
//! loss of power, is what the first *k* jobs wrote, and perhaps a part of job *k* + 1 that cannot
//! be seen. A run hands over the record of an epoch before the weights and the checkpoints that
//! build on it; none of them is ever there without it.
//!
//! **What a crash loses.** The next epoch begins without waiting for the record of the last one.
//! If coordinator and workers are all killed then, the run continues from its newest checkpoint, as
//! always, and trains again every epoch whose record was not durable: one, unless the disk takes
//! longer for a record than the workers for an epoch. If the coordinator alone is killed, its
//! workers hold a state beyond the last durable record; that state is discarded, because
//! the run has no result of the epoch in between.
//!
//! **When the disk is slow.** At most [`QUEUE`] jobs wait. The bytes of uploads are bounded by
//! their permits, which are given back when they are written: until then workers cannot begin
//! another upload. All other jobs are small. When the queue is full the disk has hung for
//! thousands of events, and [`Recorder::hand_over`] fails, which ends the run, rather than let
//! memory grow or events vanish.
//!
//! **When the disk fails.** The first failure is answered with [`Recorded::Failed`]. Only journal
//! lines are written after it, and none that says that the run ended well: such a run can be
//! resumed from what the jobs before the failure wrote.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime};

use coordinator_core::Fact;
use coordinator_core::event::{FinishedEpoch, Position};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    BEST_WEIGHTS, Blob, CURVES, Checkpoints, Journal, JournalEntry, JournalLine, Newest,
    PREDICTIONS, RunStore, Split, StoreError,
};

/// Jobs that may wait.
pub const QUEUE: usize = 16_384;
/// Journal lines that are written with one sync.
const LINES: usize = 1_024;

/// Something to be made durable, or to be looked up among what is.
pub enum Job {
    /// Something happened.
    Event(JournalLine),
    /// Which images train and which validate.
    Split(Box<Split>),
    /// An epoch is finished.
    Epoch(Box<FinishedEpoch>),
    /// The run continues from this position: later records are discarded.
    RollBack(Position),
    /// The weights of the best epoch.
    Best {
        /// From 1.
        epoch: u32,
        /// The file.
        weights: Blob,
    },
    /// The whole state of the run.
    Checkpoint {
        /// Where in the run it stands.
        position: Position,
        /// The file.
        state: Blob,
    },
    /// Look for the newest valid checkpoint.
    FindCheckpoint,
    /// Draw an image and keep it.
    Image(Image, Render),
}

impl Job {
    /// What a fact changes on the disk beside the journal.
    #[must_use]
    pub fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::SplitReady {
                fingerprint,
                classes,
                files,
                split,
            } => Some(Self::Split(Box::new(Split::of(
                fingerprint.clone(),
                classes.clone(),
                files,
                split,
            )))),
            Fact::EpochEnded { epoch, .. } => Some(Self::Epoch(Box::new(epoch.clone()))),
            Fact::RolledBack { position, .. } => Some(Self::RollBack(*position)),
            _ => None,
        }
    }
}

/// The images of a run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Losses and accuracy over the epochs.
    Curves,
    /// Validation images under their predicted and true class names.
    Predictions,
}

impl Image {
    /// The name of its file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Curves => CURVES,
            Self::Predictions => PREDICTIONS,
        }
    }
}

/// Makes the bytes of an image.
pub type Render = Box<dyn FnOnce() -> anyhow::Result<Vec<u8>> + Send>;

/// The answer to a job that has one.
#[derive(Debug)]
pub enum Recorded {
    /// Best weights are durable.
    Best {
        /// Their epoch.
        epoch: u32,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// Where in the run it stands.
        position: Position,
        /// Of its state.
        bytes: u64,
        /// From its turn to the disk.
        seconds: f64,
    },
    /// The answer to [`Job::FindCheckpoint`].
    Found(Newest),
    /// An image is in its place.
    Image {
        /// Which.
        image: Image,
        /// When it was written.
        at: SystemTime,
    },
    /// An image could not be drawn or written, which costs nothing else.
    NoImage {
        /// Which.
        image: Image,
        /// Why.
        reason: String,
    },
    /// Something that the run needs could not be written. Comes once.
    Failed(StoreError),
    /// The last answer: everything is done. No other coordinator gets the run directory while
    /// this value lives.
    Closed(RunStore),
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The disk does not keep up.
    #[error(
        "the run directory does not keep up: {QUEUE} records wait to be written; check the disk under it"
    )]
    Full,
    /// The thread is gone, which only a panic explains.
    #[error("the thread that writes the run directory has ended; the log says why")]
    Gone,
}

/// The way to the recorder. Dropping it lets the recorder write what it has and end.
#[derive(Debug)]
pub struct Recorder {
    jobs: SyncSender<Job>,
    /// Jobs that are not done.
    waiting: Arc<AtomicUsize>,
}

impl Recorder {
    /// Starts the thread. Its last answer is [`Recorded::Closed`].
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(
        store: RunStore,
        journal: Journal,
        checkpoints: Checkpoints,
    ) -> std::io::Result<(Self, UnboundedReceiver<Recorded>)> {
        let (jobs, taken) = sync_channel(QUEUE);
        // Unbounded in type only: there is at most one answer to a job.
        let (answers, answered) = unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                let mut thread = Thread {
                    store,
                    journal,
                    checkpoints,
                    answers: answers.clone(),
                    waiting: done,
                    failed: false,
                };
                thread.run(&taken);
                // It fails when the receiver is dropped.
                let _ = answers.send(Recorded::Closed(thread.store));
            })?;
        Ok((Self { jobs, waiting }, answered))
    }

    /// Hands a job over. Never waits.
    ///
    /// # Errors
    /// Too many jobs wait, or the thread is gone.
    pub fn hand_over(&self, job: Job) -> Result<(), RecorderError> {
        // Before the thread can take it, so that the count never falls below 0.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.jobs.try_send(job).map_err(|error| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => RecorderError::Full,
                TrySendError::Disconnected(_) => RecorderError::Gone,
            }
        })
    }

    /// Jobs that are not done yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

struct Thread {
    store: RunStore,
    journal: Journal,
    checkpoints: Checkpoints,
    answers: UnboundedSender<Recorded>,
    waiting: Arc<AtomicUsize>,
    failed: bool,
}

impl Thread {
    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut lines = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Event(line) => lines.push(line),
                    job => {
                        self.append(&mut lines);
                        self.perform(job);
                        self.done(1);
                    }
                }
                next = match lines.len() < LINES {
                    true => jobs.try_recv().ok(),
                    false => None,
                };
            }
            self.append(&mut lines);
        }
    }

    fn done(&self, jobs: usize) {
        self.waiting.fetch_sub(jobs, Ordering::Relaxed);
    }

    fn append(&mut self, lines: &mut Vec<JournalLine>) {
        let jobs = lines.len();
        if self.failed {
            lines.retain(|line| !matches!(line.entry, JournalEntry::Ended { ok: true, .. }));
        }
        if !lines.is_empty()
            && let Err(error) = self.journal.append_all(lines)
        {
            self.fail(error);
        }
        lines.clear();
        self.done(jobs);
    }

    fn perform(&mut self, job: Job) {
        if self.failed {
            return;
        }
        match self.write(job) {
            Ok(None) => {}
            Ok(Some(answer)) => self.answer(answer),
            Err(error) => self.fail(error),
        }
    }

    fn write(&mut self, job: Job) -> Result<Option<Recorded>, StoreError> {
        match job {
            Job::Event(line) => self.journal.append_all(&[line])?,
            Job::Split(split) => self.store.write_split(&split)?,
            Job::Epoch(epoch) => self.store.append_epoch(*epoch)?,
            Job::RollBack(position) => self.roll_back(position)?,
            Job::Best { epoch, weights } => {
                self.store.write(BEST_WEIGHTS, weights.bytes())?;
                return Ok(Some(Recorded::Best { epoch }));
            }
            Job::Checkpoint { position, state } => {
                return self.checkpoint(position, &state).map(Some);
            }
            Job::FindCheckpoint => {
                let newest = self.checkpoints.newest(self.store.epochs().len() as u32)?;
                return Ok(Some(Recorded::Found(newest)));
            }
            Job::Image(image, render) => return Ok(Some(self.image(image, render))),
        }
        Ok(None)
    }

    /// The checkpoints first: one without the record of the epoch before it would be useless.
    fn roll_back(&mut self, position: Position) -> Result<(), StoreError> {
        if let Err(error) = self.checkpoints.discard_after(position) {
            // It is passed over when the run is resumed, for it has no record before it.
            tracing::warn!(%error, "cannot remove a checkpoint that the run went back over");
        }
        self.store.truncate_epochs(position.epoch - 1)
    }

    fn checkpoint(&self, position: Position, state: &Blob) -> Result<Recorded, StoreError> {
        let started = Instant::now();
        if let Some(error) = self.checkpoints.commit(position, state)? {
            tracing::warn!(%error, "cannot remove an old checkpoint");
        }
        Ok(Recorded::Checkpoint {
            position,
            bytes: state.bytes().len() as u64,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn image(&self, image: Image, render: Render) -> Recorded {
        // Whatever a drawing library does to it, the run's results come first.
        let drawn = catch_unwind(AssertUnwindSafe(render));
        let drawn = drawn.unwrap_or_else(|_| Err(anyhow::anyhow!("the drawing panicked")));
        let kept = drawn.and_then(|bytes| Ok(self.store.write(image.file(), &bytes)?));
        match kept {
            Ok(()) => Recorded::Image {
                image,
                at: SystemTime::now(),
            },
            Err(error) => Recorded::NoImage {
                image,
                reason: error.to_string(),
            },
        }
    }

    fn fail(&mut self, error: StoreError) {
        if !std::mem::replace(&mut self.failed, true) {
            self.answer(Recorded::Failed(error));
        }
    }

    fn answer(&self, answer: Recorded) {
        // The receiver is dropped when the run is over.
        let _ = self.answers.send(answer);
    }
}

#[cfg(test)]
mod tests;
