//! The weights of the best epoch: whether the run directory has them, and who is to upload them.

use crate::WorkerId;
use crate::early_stopping::Best;

/// What is known of the best weights outside the workers.
#[derive(Debug)]
pub(in crate::run) struct BestWeights {
    /// The epoch of those in the run directory.
    stored: Option<u32>,
    /// The upload that was asked for: its epoch, and from which worker.
    awaited: Option<(u32, WorkerId)>,
}

impl BestWeights {
    /// With those of this epoch in the run directory.
    pub(in crate::run) fn new(stored: Option<u32>) -> Self {
        Self {
            stored,
            awaited: None,
        }
    }

    /// Whether the run directory has them. Those of a later epoch are as good: the run was
    /// rolled back to before that epoch, and is about to make it again.
    pub(in crate::run) fn are_stored(&self, best: Option<Best>) -> bool {
        best.is_none_or(|best| self.stored >= Some(best.epoch))
    }

    /// Notes that `worker` is asked for those of `best`; whether it has to be asked.
    pub(in crate::run) fn ask(&mut self, worker: WorkerId, best: Best) -> bool {
        let asks = !self.are_stored(Some(best)) && self.awaited.is_none();
        if asks {
            self.awaited = Some((best.epoch, worker));
        }
        asks
    }

    /// Whether they are to come from this worker.
    pub(in crate::run) fn are_awaited_from(&self, worker: WorkerId) -> bool {
        self.awaited.is_some_and(|(_, from)| from == worker)
    }

    /// Whether those of this epoch are to come from this worker.
    pub(in crate::run) fn is_upload(&self, worker: WorkerId, epoch: u32) -> bool {
        self.awaited == Some((epoch, worker))
    }

    /// Those of `epoch` are durable.
    pub(in crate::run) fn store(&mut self, epoch: u32) {
        self.stored = Some(epoch);
        if self.awaited.is_some_and(|(awaited, _)| awaited == epoch) {
            self.awaited = None;
        }
    }

    /// The worker is gone, and its upload will not come.
    pub(in crate::run) fn forget_worker(&mut self, worker: WorkerId) {
        if self.are_awaited_from(worker) {
            self.awaited = None;
        }
    }

    /// Drops an upload of this epoch or a later one.
    pub(in crate::run) fn forget_since(&mut self, epoch: u32) {
        if self.awaited.is_some_and(|(awaited, _)| awaited >= epoch) {
            self.awaited = None;
        }
    }

    /// There are better ones: no upload is awaited.
    pub(in crate::run) fn forget(&mut self) {
        self.awaited = None;
    }
}
