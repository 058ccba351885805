//! What sessions and transfers hand to the driver. Plain values and the way back.

use coordinator_core::event::Position;
use coordinator_core::{Event, WorkerId};
use tokio::sync::oneshot;

use super::Outbox;
use crate::observe::Predictions;
use crate::store::Blob;

/// One thing from outside. Processes, signals and the recorder have channels of their own.
#[derive(Debug)]
pub enum DriverInput {
    /// A worker opened a session; the driver answers with its name through `reply`.
    Register {
        /// Its registration.
        registration: Registration,
        /// For the commands to it.
        outbox: Outbox,
        /// Its name for the rest of the session.
        reply: oneshot::Sender<WorkerId>,
    },
    /// Something for the core.
    Event(Event),
    /// A worker uploaded something, complete and verified.
    Upload {
        /// Which worker.
        worker: WorkerId,
        /// What.
        upload: Upload,
    },
    /// A worker wants to read a state of the run directory; the driver answers whether it may.
    Download {
        /// Which worker.
        worker: WorkerId,
        /// Whether it is a member of the run.
        reply: oneshot::Sender<bool>,
    },
}

/// A worker, as it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its machine.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// The same for all sessions of a process, and different from that of any other process.
    pub instance: u64,
    /// Which of the launcher's processes it is, if it is one.
    pub local_rank: Option<u32>,
}

/// What workers upload.
#[derive(Debug)]
pub enum Upload {
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
    /// Predictions of some validation images.
    Predictions(Predictions),
}
