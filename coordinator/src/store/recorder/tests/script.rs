//! The jobs of a run, as its driver hands them over.

use std::collections::BTreeSet;

use coordinator_core::early_stopping::{EarlyStopping, Rule};
use coordinator_core::event::{FinishedEpoch, Phases, Position, Span};
use sha2::{Digest, Sha256};

use crate::store::checkpoints::KEEP;
use crate::store::{Blob, Job, JournalEntry, JournalLine, LargeFile, Split};

/// Of an epoch: 8 training images by 2.
const STEPS: u32 = 4;
pub(super) const RULE: Rule = Rule {
    patience: 99,
    min_delta: 0.0,
};

pub(super) fn split() -> Split {
    let paths = |of: std::ops::Range<u32>| of.map(|at| format!("a/{at}.jpg")).collect();
    Split {
        fingerprint: "f".to_owned(),
        classes: vec!["a".to_owned(), "b".to_owned()],
        train: paths(0..8),
        validation: paths(8..10),
    }
}

pub(super) fn blob(bytes: &[u8]) -> Blob {
    Blob::proven(bytes.to_vec(), Sha256::digest(bytes).into())
}

/// As a worker writes it: a header with the epoch, and no tensor.
pub(super) fn weights(epoch: u32) -> Blob {
    let header = format!("{{\"__metadata__\":{{\"epoch\":\"{epoch}\"}}}}");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    blob(&bytes)
}

pub(super) fn finished(epoch: u32, validation_loss: f64) -> FinishedEpoch {
    FinishedEpoch {
        epoch,
        validation_loss,
        phases: Phases::default(),
        generation: u64::from(epoch),
        ledger: vec![Span {
            generation: u64::from(epoch),
            world_size: 1,
            first: 0,
            end: STEPS,
        }],
        ..FinishedEpoch::default()
    }
}

pub(super) fn event(line: &str) -> Job {
    let line = line.to_owned();
    Job::Event(JournalLine::now(JournalEntry::Stalled { line }))
}

/// What the driver of a run hands over, by the choices of `dice`.
#[derive(Default)]
pub(super) struct Script {
    pub(super) jobs: Vec<Box<dyn Fn() -> Job>>,
    pub(super) losses: Vec<f64>,
    pub(super) checkpoints: BTreeSet<Position>,
}

impl Script {
    pub(super) fn of(dice: &[u8]) -> Self {
        let mut script = Self::default();
        script.add(|| event("formed"));
        script.add(|| Job::Split(Box::new(split())));
        for die in dice {
            script.epoch(*die);
        }
        script
    }

    /// The first `count` jobs, without the last `in_progress` large files, if no job among them
    /// waits for those.
    pub(super) fn first(&self, count: usize, in_progress: usize) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.jobs[..count].iter().map(|job| job()).collect();
        let waits = |job: &Job| matches!(job, Job::RollBack(_) | Job::FindCheckpoint);
        let settled = jobs.iter().rposition(waits).unwrap_or(0);
        for _ in 0..in_progress {
            let last = jobs.iter().rposition(|job| matches!(job, Job::File(_)));
            match last {
                Some(at) if at > settled => drop(jobs.remove(at)),
                _ => break,
            }
        }
        jobs
    }

    pub(super) fn add(&mut self, job: impl Fn() -> Job + 'static) {
        self.jobs.push(Box::new(job));
    }

    /// An epoch whose middle may have a checkpoint, that may improve, and after which the run may
    /// roll back to a checkpoint, as one all of whose workers were lost.
    pub(super) fn epoch(&mut self, die: u8) {
        let epoch = self.losses.len() as u32 + 1;
        if die & 1 != 0 {
            self.checkpoint(Position {
                epoch,
                completed: 2,
            });
        }
        if die & 2 != 0 {
            self.add(move || event("lost"));
            self.add(move || event("recovered"));
        }
        let loss = f64::from(die / 32) + 1.0 / f64::from(epoch);
        self.losses.push(loss);
        self.add(move || Job::Epoch(Box::new(finished(epoch, loss))));
        let mut stopping = EarlyStopping::new(RULE);
        for (loss, epoch) in self.losses.iter().zip(1..) {
            stopping.observe(epoch, *loss);
        }
        if stopping
            .standing()
            .best
            .is_some_and(|best| best.epoch == epoch)
        {
            self.add(move || {
                Job::File(LargeFile::Best {
                    epoch,
                    weights: weights(epoch),
                })
            });
        }
        if die & 4 != 0 {
            self.checkpoint(Position::start_of(epoch + 1));
        }
        if die & 24 == 24 {
            let back = self.checkpoints.iter().rev().nth(1).copied();
            let back = back.unwrap_or(Position::start_of(1));
            self.checkpoints.retain(|at| *at <= back);
            self.losses.truncate(back.epoch as usize - 1);
            self.add(move || Job::RollBack(back));
        }
    }

    pub(super) fn checkpoint(&mut self, position: Position) {
        self.checkpoints.insert(position);
        while self.checkpoints.len() > KEEP {
            self.checkpoints.pop_first();
        }
        self.add(move || {
            Job::File(LargeFile::Checkpoint {
                position,
                state: blob(format!("{position:?}").as_bytes()),
            })
        });
        self.add(move || event("checkpoint"));
    }
}
