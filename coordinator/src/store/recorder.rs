//! What makes things durable, on two operating system threads of its own, so that nothing that
//! trains waits for the disk. It owns the run directory during a run: journal, split, records of
//! epochs, best weights, checkpoints and images. It must not decide what is kept.
//!
//! **Order.** The thread `recorder` takes the jobs in the order in which they come. A job begins
//! when the records before it are durable; journal lines that follow each other share one sync.
//! It hands large files over to the thread `large-files`, which writes them in that order, so that
//! no record waits here for a checkpoint of a hundred megabytes. The file system may still let the
//! sync of a record wait for the data of such a file. Jobs that look at those files or
//! remove some ([`Job::FindCheckpoint`], [`Job::RollBack`], the journal line that ends the run)
//! wait until all of them are written.
//!
//! **Durability.** So what is on the disk at any moment, also after a crash or a loss of power, is
//! what the first *k* jobs wrote, perhaps without the last of their large files, and perhaps a part
//! of one more job of each thread that cannot be seen. A run hands over the record of an epoch
//! before the weights and the checkpoints that build on it; none of them is ever there without it.
//!
//! **What a crash loses.** The next epoch begins without waiting for the record of the last one,
//! which is a few kilobytes and a sync. If coordinator and workers are all killed, the run
//! continues from its newest checkpoint and trains again what came after it. If the coordinator
//! alone is killed, its workers hold a state that is as far as they have come, and the run
//! continues with it, unless the record of an epoch before it was not durable: then that state is
//! discarded, because the run has no result of that epoch, and the newest checkpoint is used.
//!
//! **When the disk is slow.** At most [`QUEUE`] jobs wait. The bytes of uploads are bounded by
//! their permits, which are given back when they are written: until then workers cannot begin
//! another upload. All other jobs are small. When the queue is full the disk has hung for
//! thousands of events, and [`Recorder::hand_over`] fails, which ends the run, rather than let
//! memory grow or events vanish.
//!
//! **When the disk fails.** The first failure is answered with [`Recorded::Failed`]. Only journal
//! lines are written after it, and none that says that the run ended well: such a run can be
//! resumed from what was written before the failure.

mod answers;
mod large_files;
mod thread;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;

use coordinator_core::Fact;
use coordinator_core::event::{BadFile, FinishedEpoch, Position};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Blob, CURVES, Checkpoints, Journal, JournalLine, Newest, PREDICTIONS, RunStore, Split,
    StoreError,
};
use answers::Answers;
use large_files::LargeFiles;

/// Jobs that may wait.
pub const QUEUE: usize = 16_384;

/// Something to be made durable, or to be looked up among what is.
pub enum Job {
    /// Something happened.
    Event(JournalLine),
    /// Files that do not decode.
    BadFiles(Vec<BadFile>),
    /// Which images train and which validate.
    Split(Box<Split>),
    /// An epoch is finished.
    Epoch(Box<FinishedEpoch>),
    /// The run continues from this position: later records and checkpoints are discarded.
    RollBack(Position),
    /// Look for the newest valid checkpoint.
    FindCheckpoint,
    /// A file that may be large.
    File(LargeFile),
}

/// A file that no record waits for.
pub enum LargeFile {
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
            Fact::BadFiles(bad) => Some(Self::BadFiles(bad.clone())),
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
    answers: Answers,
}

impl Recorder {
    /// Starts the threads. The last answer is [`Recorded::Closed`].
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(
        store: RunStore,
        journal: Journal,
        checkpoints: Checkpoints,
    ) -> std::io::Result<(Self, UnboundedReceiver<Recorded>)> {
        let (jobs, taken) = sync_channel(QUEUE);
        let (answers, answered) = Answers::new();
        let root = store.root().to_owned();
        let files = LargeFiles::start(root, checkpoints.clone(), answers.clone())?;
        let thread = thread::Thread {
            store,
            journal,
            checkpoints,
            files,
            answers: answers.clone(),
        };
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || thread.run(&taken))?;
        Ok((Self { jobs, answers }, answered))
    }

    /// Hands a job over. Never waits.
    ///
    /// # Errors
    /// Too many jobs wait, or the thread is gone.
    pub fn hand_over(&self, job: Job) -> Result<(), RecorderError> {
        // Before the thread can take it, so that the count never falls below 0.
        self.answers.add_job();
        self.jobs.try_send(job).map_err(|error| {
            self.answers.done(1);
            match error {
                TrySendError::Full(_) => RecorderError::Full,
                TrySendError::Disconnected(_) => RecorderError::Gone,
            }
        })
    }

    /// Jobs that are not done yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.answers.waiting()
    }
}

#[cfg(test)]
mod tests;
