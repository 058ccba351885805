//! Writes what the workers hand over into the run directory, one thing after the other and off
//! the driver's task: a slow disk must not hold up the grants.

use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::rpc::admission::Permit;
use crate::runtime::input::{DriverInput, Kept};
use crate::store::{Checkpoints, StoreError, Upload};
use coordinator_core::event::Position;

/// The one writer of uploaded files.
#[derive(Debug)]
pub struct CheckpointWriter {
    checkpoints: Checkpoints,
    arrivals: mpsc::UnboundedSender<DriverInput>,
    last: Option<JoinHandle<()>>,
}

impl CheckpointWriter {
    /// A keeper that reports to `arrivals`.
    pub fn new(checkpoints: Checkpoints, arrivals: mpsc::UnboundedSender<DriverInput>) -> Self {
        Self {
            checkpoints,
            arrivals,
            last: None,
        }
    }

    /// Stores the best weights of an epoch.
    pub fn best(
        &mut self,
        epoch: u32,
        upload: Result<Upload, StoreError>,
        (bytes, place): (Vec<u8>, Permit),
        sha256: Vec<u8>,
    ) {
        self.then(move || {
            let _until_written = place;
            let write = || {
                let mut upload = upload?;
                upload.write(&bytes)?;
                upload.commit(&sha256).map(drop)
            };
            Some(Kept::Best {
                epoch,
                result: write().map_err(in_words),
            })
        });
    }

    /// Stores a checkpoint.
    pub fn checkpoint(
        &mut self,
        position: Position,
        (bytes, place): (Vec<u8>, Permit),
        sha256: Vec<u8>,
    ) {
        let checkpoints = self.checkpoints.clone();
        self.then(move || {
            let _until_written = place;
            let started = Instant::now();
            let size = bytes.len() as u64;
            let write = || {
                let mut upload = checkpoints.begin(position, size)?;
                upload.write(&bytes)?;
                let committed = upload.commit(&sha256)?;
                if let Some(error) = committed.not_pruned {
                    tracing::warn!(%error, "an old checkpoint could not be removed");
                }
                Ok(())
            };
            Some(Kept::Checkpoint {
                position,
                bytes: size,
                result: write().map_err(in_words),
                seconds: started.elapsed().as_secs_f64(),
            })
        });
    }

    /// Looks for the newest whole checkpoint among those that are written by now.
    pub fn find(&mut self) {
        let checkpoints = self.checkpoints.clone();
        self.then(move || Some(Kept::Newest(checkpoints.newest().map_err(in_words))));
    }

    /// Removes what a run that went back will make again.
    pub fn discard_after(&mut self, position: Position) {
        let checkpoints = self.checkpoints.clone();
        self.then(move || {
            if let Err(error) = checkpoints.discard_after(position) {
                tracing::warn!(%error, "a checkpoint of the discarded part could not be removed");
            }
            None
        });
    }

    /// Where a checkpoint's state lies.
    pub fn state_path(&self, position: Position) -> PathBuf {
        self.checkpoints.state_path(position)
    }

    fn then(&mut self, work: impl FnOnce() -> Option<Kept> + Send + 'static) {
        let previous = self.last.take();
        let arrivals = self.arrivals.clone();
        self.last = Some(tokio::spawn(async move {
            if let Some(previous) = previous {
                // However it ended, it has said so itself.
                let _ = previous.await;
            }
            match tokio::task::spawn_blocking(work).await {
                // The driver is gone only when the run is over.
                Ok(Some(kept)) => drop(arrivals.send(DriverInput::Kept(kept))),
                Ok(None) => {}
                Err(error) => {
                    let reason = format!("writing to the run directory failed: {error}");
                    drop(arrivals.send(DriverInput::Kept(Kept::Failed(reason))));
                }
            }
        }));
    }
}

fn in_words(error: StoreError) -> String {
    error.to_string()
}
