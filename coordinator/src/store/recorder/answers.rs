//! What the threads of the recorder say: answers, how many jobs wait, and that the disk failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Recorded;
use crate::store::StoreError;

#[derive(Debug, Clone)]
pub(super) struct Answers {
    // Unbounded in type only: there is at most one answer to a job.
    to: UnboundedSender<Recorded>,
    waiting: Arc<AtomicUsize>,
    failed: Arc<AtomicBool>,
}

impl Answers {
    pub(super) fn new() -> (Self, UnboundedReceiver<Recorded>) {
        let (to, answers) = unbounded_channel();
        let new = Self {
            to,
            waiting: Arc::default(),
            failed: Arc::default(),
        };
        (new, answers)
    }

    pub(super) fn add_job(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn done(&self, jobs: usize) {
        self.waiting.fetch_sub(jobs, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Answers a job, or says that it failed. The first failure is the only one that is told.
    pub(super) fn answer(&self, result: Result<Option<Recorded>, StoreError>) {
        let answer = match result {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(_) if self.failed.swap(true, Ordering::AcqRel) => return,
            Err(error) => Recorded::Failed(error),
        };
        // The receiver is dropped when the run is over.
        let _ = self.to.send(answer);
    }

    /// Whether something could not be written.
    pub(super) fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}
