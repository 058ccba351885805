//! The thread that writes best weights, checkpoints and images, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use coordinator_core::event::Position;

use super::{Answers, Image, LargeFile, QUEUE, Recorded, Render};
use crate::store::{BEST_WEIGHTS, Blob, Checkpoints, StoreError, write_file};

/// The thread is gone, which only a panic explains.
pub(super) struct Gone;

enum Order {
    Write(LargeFile),
    /// Answer when all before this are written.
    Reply(SyncSender<()>),
}

/// The way to the thread.
pub(super) struct LargeFiles {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

impl LargeFiles {
    pub(super) fn start(
        root: PathBuf,
        checkpoints: Checkpoints,
        answers: Answers,
    ) -> std::io::Result<Self> {
        let (orders, taken) = sync_channel(QUEUE);
        let writer = Writer {
            root,
            checkpoints,
            answers,
        };
        let thread = std::thread::Builder::new()
            .name("large-files".to_owned())
            .spawn(move || writer.run(&taken))?;
        Ok(Self { orders, thread })
    }

    pub(super) fn hand_over(&self, file: LargeFile) -> Result<(), Gone> {
        self.orders.send(Order::Write(file)).map_err(|_| Gone)
    }

    /// Waits until all that was handed over is written.
    pub(super) fn wait(&self) -> Result<(), Gone> {
        let (reply, written) = sync_channel(1);
        self.orders.send(Order::Reply(reply)).map_err(|_| Gone)?;
        written.recv().map_err(|_| Gone)
    }

    /// Ends the thread when all is written.
    ///
    /// # Panics
    /// When the thread has.
    pub(super) fn close(self) {
        drop(self.orders);
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
    }
}

struct Writer {
    root: PathBuf,
    checkpoints: Checkpoints,
    answers: Answers,
}

impl Writer {
    fn run(&self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(file) => {
                    if !self.answers.have_failed() {
                        self.answers.answer(self.write(file).map(Some));
                    }
                    self.answers.done(1);
                }
                // It fails when the other thread is gone.
                Order::Reply(to) => drop(to.send(())),
            }
        }
    }

    fn write(&self, file: LargeFile) -> Result<Recorded, StoreError> {
        match file {
            LargeFile::Best { epoch, weights } => {
                write_file(&self.root, BEST_WEIGHTS, weights.bytes())?;
                Ok(Recorded::Best { epoch })
            }
            LargeFile::Checkpoint { position, state } => self.checkpoint(position, &state),
            LargeFile::Image(image, render) => Ok(self.image(image, render)),
        }
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
        let kept = drawn.and_then(|bytes| Ok(write_file(&self.root, image.file(), &bytes)?));
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
}
