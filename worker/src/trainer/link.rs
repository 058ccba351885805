//! The channels between the agent and the training thread: orders and step grants one way,
//! reports and blobs the other.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use common::manifest::Manifest;
use tokio::sync::mpsc;
use worker_control::{Control, Inbox, Position, Report, RetainedState, State, Task, TrainError};

use super::processors::Processors;

/// The inbox as both sides share it.
#[derive(Debug, Clone, Default)]
pub struct SharedInbox(Arc<(Mutex<Inbox>, Condvar)>);

impl SharedInbox {
    /// Changes the inbox, and wakes the training thread.
    pub fn change<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.1.notify_all();
        result
    }

    /// Whether the thread's work in its group is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled()
    }

    /// The next task of `control`; `idle` runs before a wait.
    pub(super) fn next<S: State>(&self, control: &mut Control<S>, idle: impl FnOnce()) -> Task {
        let mut inbox = self.lock();
        let mut idle = Some(idle);
        loop {
            match control.next(&mut inbox) {
                Task::Wait => {
                    if let Some(idle) = idle.take() {
                        idle();
                    }
                    inbox = self.0.1.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                }
                task => return task,
            }
        }
    }

    /// A poisoned lock means that the other side panicked; the inbox is plain values and stays
    /// usable for the orderly end.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of the training thread to the agent.
#[derive(Debug)]
pub enum Outgoing {
    /// Data, device and retained state.
    Scanned(Scanned),
    /// So many images are decoded.
    Preparing(u32),
    /// Rank 0 serves a store.
    StoreListening {
        /// Of this generation.
        generation: u64,
        /// Its port.
        port: u16,
        /// Where its peers reach it, if not where the coordinator does.
        host: Option<String>,
    },
    /// A report.
    Report(Report),
    /// A blob; training continues while it is uploaded.
    Upload(Upload),
    /// A blob of the run directory is needed; the thread waits for it.
    Fetch {
        /// Which one.
        blob: Download,
        /// Its bytes, or the error.
        reply: Sender<Result<Vec<u8>, String>>,
    },
    /// Images are needed that the coordinator has; the thread waits for them.
    Images {
        /// The images, and where to put them.
        wanted: Vec<Wanted>,
        /// Whether all have arrived.
        reply: Sender<Result<(), FetchError>>,
    },
    /// The store of a group being formed, for the agent to interrupt when a peer dies.
    Store(c10d::Store),
    /// A live process group, for the agent to abort when a peer dies.
    Group(c10d::ProcessGroup),
}

/// What a worker found in its data folder, and on what it computes.
#[derive(Debug)]
pub struct Scanned {
    /// Its images.
    pub manifest: Arc<Manifest>,
    /// SHA-256 over paths and sizes, in hex.
    pub fingerprint: String,
    /// `cpu`, or `cuda:` and an index.
    pub device: String,
    /// Whether the device has native bf16.
    pub native_bf16: bool,
    /// As the driver names its GPU; empty on a CPU.
    pub gpu_uuid: String,
    /// What it may compute with beside a GPU.
    pub processors: Processors,
    /// What a worker that rejoins has retained.
    pub retained: RetainedState,
}

/// A blob for the run directory.
#[derive(Debug)]
pub enum Upload {
    /// The weights after this epoch, as a `.safetensors` file.
    Best {
        /// The epoch.
        epoch: u32,
        /// The file.
        file: Unwritten,
    },
    /// The whole state, as a `.safetensors` file.
    Checkpoint {
        /// Its position.
        position: Position,
        /// The file.
        file: Unwritten,
    },
    /// Predictions by the best weights.
    Predictions(Predictions),
}

/// A file that is serialised where it is uploaded, so that training goes on meanwhile.
pub struct Unwritten(Box<Write>);

type Write = dyn FnOnce() -> Result<Vec<u8>, TrainError> + Send;

impl Unwritten {
    /// What `write` returns.
    pub fn new(write: impl FnOnce() -> Result<Vec<u8>, TrainError> + Send + 'static) -> Self {
        Self(Box::new(write))
    }

    /// Its bytes. This takes a while.
    ///
    /// # Errors
    /// When the device fails before it has copied the state, or there is no memory left.
    pub fn write(self) -> Result<Vec<u8>, TrainError> {
        self.0()
    }
}

impl fmt::Debug for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unwritten")
    }
}

/// A blob of the run directory.
#[derive(Debug, Clone, Copy)]
pub enum Download {
    /// The best weights.
    Best,
    /// The checkpoint at this position.
    Checkpoint(Position),
}

/// Predictions of a few images.
#[derive(Debug)]
pub struct Predictions {
    /// Pixels a side.
    pub image_size: u32,
    /// One for each image.
    pub predictions: Vec<Prediction>,
}

/// The prediction of one image.
#[derive(Debug)]
pub struct Prediction {
    /// Its place in the list of images.
    pub sample: u32,
    /// The likeliest class.
    pub class: u32,
    /// Its probability.
    pub probability: f32,
    /// RGB, row by row.
    pub pixels: Vec<u8>,
}

/// An image that is to be fetched.
#[derive(Debug)]
pub struct Wanted {
    /// Its place in the coordinator's list.
    pub sample: u32,
    /// Where it is put.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// Why images were not fetched. Those before the failed one have arrived.
#[derive(Debug)]
pub enum FetchError {
    /// The session broke; another attempt may succeed.
    Broken(String),
    /// The coordinator refuses, or the images cannot be written.
    Refused(String),
}

/// The sender of the training thread.
#[derive(Debug, Clone)]
pub struct Link(mpsc::UnboundedSender<Outgoing>);

impl Link {
    /// A link to the agent that reads `outgoing`.
    pub fn new(outgoing: mpsc::UnboundedSender<Outgoing>) -> Self {
        Self(outgoing)
    }

    /// Sends a message. It fails only when the agent has ended, and the session with it.
    pub(super) fn send(&self, outgoing: Outgoing) {
        let _ = self.0.send(outgoing);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use worker_control::Order;

    use super::*;

    struct Nothing(Infallible);

    impl State for Nothing {
        type Weights = ();

        fn position(&self) -> Position {
            match self.0 {}
        }

        fn loss_sum(&self) -> f64 {
            match self.0 {}
        }

        fn next_epoch(&mut self) {}

        fn undo_step(&mut self) {}
    }

    #[test]
    fn an_order_ends_the_wait_of_the_training_thread() {
        let inbox = SharedInbox::default();
        let (idle, is_idle) = std::sync::mpsc::channel();
        let waiting = inbox.clone();
        let thread = std::thread::spawn(move || {
            let mut control = Control::<Nothing>::new(false);
            waiting.next(&mut control, || idle.send(()).unwrap())
        });
        is_idle.recv().unwrap();
        inbox.change(|inbox| inbox.push(Order::Shutdown));
        assert_eq!(thread.join().unwrap(), Task::End(Ok(())));
    }
}
