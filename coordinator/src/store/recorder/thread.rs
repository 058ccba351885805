//! The thread that takes the jobs. It writes the records, and hands large files over.

use std::sync::mpsc::Receiver;

use coordinator_core::event::Position;

use super::large_files::{Gone, LargeFiles};
use super::{Answers, Job, Recorded};
use crate::store::{Checkpoints, Journal, JournalEntry, JournalLine, RunStore, StoreError};

/// Journal lines that are written with one sync.
pub(super) const LINES: usize = 1_024;

pub(super) struct Thread {
    pub(super) store: RunStore,
    pub(super) journal: Journal,
    pub(super) checkpoints: Checkpoints,
    pub(super) files: LargeFiles,
    pub(super) answers: Answers,
}

impl Thread {
    /// Until the last [`super::Recorder`] is dropped.
    ///
    /// # Panics
    /// When the thread of the large files has: no caller gets the run directory as complete then.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        // It ends early only when that thread is gone, which `close` tells.
        let _ = self.take(jobs);
        self.files.close();
        self.answers.answer(Ok(Some(Recorded::Closed(self.store))));
    }

    fn take(&mut self, jobs: &Receiver<Job>) -> Result<(), Gone> {
        let mut lines = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Event(line) => lines.push(line),
                    job => {
                        self.append(&mut lines)?;
                        self.perform(job)?;
                    }
                }
                next = match lines.len() < LINES {
                    true => jobs.try_recv().ok(),
                    false => None,
                };
            }
            self.append(&mut lines)?;
        }
        Ok(())
    }

    fn append(&mut self, lines: &mut Vec<JournalLine>) -> Result<(), Gone> {
        let jobs = lines.len();
        let ends = |line: &JournalLine| matches!(line.entry, JournalEntry::Ended { .. });
        if lines.iter().any(ends) {
            self.files.wait()?;
        }
        if self.answers.have_failed() {
            lines.retain(|line| !matches!(line.entry, JournalEntry::Ended { ok: true, .. }));
        }
        if !lines.is_empty() {
            let written = self.journal.append_all(lines);
            self.answers.answer(written.map(|()| None));
        }
        lines.clear();
        self.answers.done(jobs);
        Ok(())
    }

    fn perform(&mut self, job: Job) -> Result<(), Gone> {
        match job {
            Job::File(file) => return self.files.hand_over(file),
            Job::RollBack(_) | Job::FindCheckpoint => self.files.wait()?,
            _ => {}
        }
        if !self.answers.have_failed() {
            let answer = self.write(job);
            self.answers.answer(answer);
        }
        self.answers.done(1);
        Ok(())
    }

    fn write(&mut self, job: Job) -> Result<Option<Recorded>, StoreError> {
        match job {
            Job::BadFiles(bad) => self.store.write_bad_files(&bad)?,
            Job::Split(split) => self.store.write_split(&split)?,
            Job::Epoch(epoch) => self.store.append_epoch(*epoch)?,
            Job::RollBack(position) => self.roll_back(position)?,
            Job::FindCheckpoint => {
                let newest = self.checkpoints.newest(self.store.epochs().len() as u32)?;
                return Ok(Some(Recorded::Found(newest)));
            }
            Job::Event(_) | Job::File(_) => {}
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
}
