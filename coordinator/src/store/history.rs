//! The contents of a run directory, for the coordinator that resumes the run. It only reads; the
//! caller decides whether and where the run continues.

use std::net::SocketAddr;
use std::time::SystemTime;

use coordinator_core::event::{FinishedEpoch, Position};
use coordinator_core::run::Resumed;

use super::{
    Checkpoints, Journal, JournalEntry, JournalLine, PREDICTIONS, RunStore, Split, StoreError,
};

/// What a former coordinator left of a run.
#[derive(Debug)]
pub struct RunHistory {
    /// The name that workers know it by; none in a directory in which no run began.
    pub run_id: Option<String>,
    /// Why the run ended, if nothing is left to resume.
    pub ended: Option<String>,
    /// The last generation on record.
    pub generation: u64,
    /// Where its workers look for a coordinator.
    pub address: Option<SocketAddr>,
    /// None when nothing was trained yet.
    pub split: Option<Split>,
    /// The finished epochs.
    pub epochs: Vec<FinishedEpoch>,
    /// The epoch of the stored best weights.
    pub best_epoch: Option<u32>,
    /// The newest valid checkpoint.
    pub checkpoint: Option<Position>,
    /// Checkpoints that cannot be used, a line each.
    pub corrupt: Vec<String>,
    /// When the predictions were drawn, if they were.
    pub predictions: Option<SystemTime>,
}

impl RunHistory {
    /// Reads the directory of `store`; all of the newest checkpoint is read to prove it.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn read(
        store: &RunStore,
        journal: &Journal,
        checkpoints: &Checkpoints,
    ) -> Result<Self, StoreError> {
        let lines = journal.lines()?;
        let ended = reason_of_end(&lines);
        let (mut run_id, mut generation) = (None, 0);
        for line in lines {
            match line.entry {
                JournalEntry::Started { run_id: id, .. } => run_id = Some(id),
                JournalEntry::Formed { generation: at, .. }
                | JournalEntry::Recovered { generation: at, .. } => generation = generation.max(at),
                _ => {}
            }
        }
        let split = store.read_split()?;
        let epochs = match split {
            Some(_) => store.epochs().to_vec(),
            None => Vec::new(),
        };
        let generations = epochs.iter().map(|epoch| epoch.generation);
        let newest = checkpoints.newest(epochs.len() as u32)?;
        Ok(Self {
            run_id,
            ended,
            generation: generations.fold(generation, u64::max),
            address: store.read_address()?,
            split,
            epochs,
            best_epoch: store.best_epoch()?,
            checkpoint: newest.checkpoint,
            corrupt: newest.corrupt.iter().map(ToString::to_string).collect(),
            predictions: store.modified(PREDICTIONS),
        })
    }

    /// What the core needs of it to resume the run; none when nothing was trained yet.
    #[must_use]
    pub fn resumed(&self) -> Option<Resumed> {
        let split = self.split.clone()?;
        Some(Resumed {
            fingerprint: split.fingerprint,
            train: split.train,
            validation: split.validation,
            validation_losses: self.epochs.iter().map(|e| e.validation_loss).collect(),
            best_epoch: self.best_epoch,
            checkpoint: self.checkpoint,
            generation: self.generation,
        })
    }

    /// Where the run continues if no worker retains a later state.
    #[must_use]
    pub fn position(&self) -> Position {
        self.checkpoint.unwrap_or(Position::start_of(1))
    }
}

/// Why a run ended, by its journal, if nothing is left to resume. One that was interrupted, or
/// failed, can be resumed.
#[must_use]
pub fn reason_of_end(lines: &[JournalLine]) -> Option<String> {
    lines.iter().find_map(|line| match &line.entry {
        JournalEntry::Ended { reason, ok: true } if reason != "interrupted" => Some(reason.clone()),
        _ => None,
    })
}
