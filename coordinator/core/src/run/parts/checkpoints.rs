//! Checkpoints: when one is due, who is to upload it, and which one is the newest.

use crate::WorkerId;
use crate::event::Position;
use crate::run::{Cadence, Now};

/// What is known of the checkpoints.
#[derive(Debug)]
pub(in crate::run) struct Checkpoints {
    cadence: Cadence,
    /// One is due, and is not durable yet.
    due: bool,
    /// When one was last due, and at which step of the epoch.
    last: (Now, u32),
    /// The upload that was asked for: from which worker, and the least position that it must have.
    awaited: Option<(WorkerId, Position)>,
    /// The newest durable one, as far as is known.
    newest: Option<Position>,
}

impl Checkpoints {
    /// With the newest one in the run directory.
    pub(in crate::run) fn new(cadence: Cadence, newest: Option<Position>) -> Self {
        Self {
            cadence,
            due: false,
            last: (Now::ZERO, 0),
            awaited: None,
            newest,
        }
    }

    /// An epoch continues from this step, which may lie before the last checkpoint.
    pub(in crate::run) fn resume_epoch(&mut self, completed: u32) {
        self.last.1 = self.last.1.min(completed);
    }

    /// All ranks have made these steps of the epoch; whether that makes a checkpoint due.
    pub(in crate::run) fn completed(&mut self, now: Now, steps: u32) -> bool {
        let (since, step) = self.last;
        let due = match self.cadence {
            Cadence::EpochsOnly => false,
            Cadence::Steps(every) => steps >= step + every,
            Cadence::Seconds(every) => now.saturating_sub(since).as_secs_f64() >= every,
        };
        if due {
            self.last = (now, steps);
            self.due = true;
        }
        due
    }

    /// An epoch is finished, which makes a checkpoint due.
    pub(in crate::run) fn finish_epoch(&mut self, now: Now) {
        self.last = (now, 0);
        self.due = true;
    }

    /// Whether one is due that no worker was asked for yet.
    pub(in crate::run) fn is_wanted(&self) -> bool {
        self.due && self.awaited.is_none()
    }

    /// Notes that `worker` is asked for one of `from` or later.
    pub(in crate::run) fn ask(&mut self, worker: WorkerId, from: Position) {
        self.awaited = Some((worker, from));
    }

    /// Whether a worker was asked for one, and it has not come.
    pub(in crate::run) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether it is to come from this worker.
    pub(in crate::run) fn is_awaited_from(&self, worker: WorkerId) -> bool {
        self.awaited.is_some_and(|(from, _)| from == worker)
    }

    /// Whether this worker was asked for one of this position or later.
    pub(in crate::run) fn is_asked(&self, worker: WorkerId, from: Position) -> bool {
        self.awaited == Some((worker, from))
    }

    /// The worker is gone, and its upload will not come.
    pub(in crate::run) fn forget_worker(&mut self, worker: WorkerId) {
        if self.is_awaited_from(worker) {
            self.awaited = None;
        }
    }

    /// No upload counts as the one that was asked for.
    pub(in crate::run) fn forget(&mut self) {
        self.awaited = None;
    }

    /// The one at `position` is durable, where the run can go on from `restart`.
    pub(in crate::run) fn store(&mut self, position: Position, restart: Position) {
        self.newest = self.newest.max(Some(position));
        if self.awaited.is_some_and(|(_, from)| restart >= from) {
            self.awaited = None;
            self.due = false;
        }
    }

    /// The run directory was searched: this is the newest.
    pub(in crate::run) fn found(&mut self, newest: Option<Position>) {
        self.newest = newest;
    }

    /// The newest durable one, as far as is known.
    pub(in crate::run) fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// The run was rolled back: later ones are discarded.
    pub(in crate::run) fn discard_after(&mut self, position: Position) {
        if self.newest > Some(position) {
            self.newest = None;
        }
    }
}
