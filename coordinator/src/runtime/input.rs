//! What reaches the driver from outside, but for signals and the ends of processes: messages of
//! sessions, blobs, and how the writing of files came out. Plain values and the way back.

use std::path::PathBuf;

use proto::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::rpc::admission::Permit;
use crate::store::Newest;
use coordinator_core::event::Position;
use coordinator_core::{Event, WorkerId};

/// What the edge, and the writing of files, hand to the driver.
pub enum DriverInput {
    /// A worker introduced itself; the driver answers with its name through `reply`.
    Worker {
        /// Its first message.
        register: v1::Register,
        /// For everything it is to be told.
        outbox: Outbox,
        /// Its name for the rest of the session.
        reply: oneshot::Sender<WorkerId>,
    },
    /// Something for the core.
    Event(Event),
    /// A blob whose length and sum are right.
    Blob {
        /// What it is.
        header: v1::BlobHeader,
        /// All of it.
        bytes: Vec<u8>,
        /// What it takes up until it is written.
        place: Permit,
    },
    /// Somebody wants to read a file of the run directory; the driver answers with its path.
    Download {
        /// Which.
        request: v1::DownloadRequest,
        /// Its path, or a refusal.
        reply: oneshot::Sender<Result<PathBuf, Status>>,
    },
    /// What was being written or looked for is there, or not.
    Kept(Kept),
}

/// How something that the keeper did came out.
#[derive(Debug)]
pub enum Kept {
    /// The best weights of an epoch.
    Best {
        /// From 1.
        epoch: u32,
        /// Why not, in words.
        result: Result<(), String>,
    },
    /// A checkpoint.
    Checkpoint {
        /// Where in the run it stands.
        position: Position,
        /// Of its state.
        bytes: u64,
        /// That the writing took.
        seconds: f64,
        /// Why not, in words.
        result: Result<(), String>,
    },
    /// The newest whole checkpoint.
    Newest(Result<Newest, String>),
    /// Nothing came of it.
    Failed(String),
}

/// Where a worker's messages go. Dropping it ends the session, once what was sent is delivered.
#[derive(Debug)]
pub struct Outbox {
    messages: mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>,
    /// Its other end is told when this one is dropped.
    _open: oneshot::Sender<()>,
}

impl Outbox {
    /// Of a session whose receiving side ends some time after `open` is dropped.
    pub(crate) fn new(
        messages: mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>,
        open: oneshot::Sender<()>,
    ) -> Self {
        Self {
            messages,
            _open: open,
        }
    }

    /// Sends a message, unless the session is broken, which reports itself.
    pub fn send(&self, message: v1::CoordinatorMessage) {
        let _ = self.messages.send(Ok(message));
    }
}
