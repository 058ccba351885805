//! Counts what goes on at the edge: sessions before their `Register`, live ones, transfers. It
//! knows names and numbers, not what is said.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::limits::{MAX_DOWNLOADS, MAX_SESSIONS, MAX_SESSIONS_PENDING, MAX_UPLOADS};

/// The counts; clones share them.
#[derive(Debug, Clone)]
pub struct Admission {
    pending: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    live: Arc<Mutex<HashSet<u64>>>,
}

/// One of a limited number, until dropped.
#[derive(Debug)]
pub struct Permit(#[allow(dead_code, reason = "dropping it gives it back")] OwnedSemaphorePermit);

/// A live session, until dropped.
#[derive(Debug)]
pub struct Live {
    worker: u64,
    live: Arc<Mutex<HashSet<u64>>>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            pending: Arc::new(Semaphore::new(MAX_SESSIONS_PENDING)),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            live: Arc::default(),
        }
    }
}

impl Admission {
    /// A session that has said nothing yet.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many such sessions, or too many at all.
    pub fn session(&self) -> Result<Permit, Status> {
        if lock(&self.live).len() >= MAX_SESSIONS {
            return Err(Status::resource_exhausted(format!(
                "there are {MAX_SESSIONS} sessions already"
            )));
        }
        local_rank(&self.pending, || {
            format!("{MAX_SESSIONS_PENDING} sessions are starting already; try again")
        })
    }

    /// The session of `worker`, from its `Register` on.
    #[must_use]
    pub fn live(&self, worker: u64) -> Live {
        lock(&self.live).insert(worker);
        Live {
            worker,
            live: Arc::clone(&self.live),
        }
    }

    /// An upload or a download of `worker`.
    ///
    /// # Errors
    /// `NOT_FOUND` when `worker` has no session.
    pub fn known(&self, worker: u64) -> Result<(), Status> {
        if lock(&self.live).contains(&worker) {
            return Ok(());
        }
        Err(Status::not_found(format!(
            "worker {worker} has no session here"
        )))
    }

    /// A place for one download.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many.
    pub fn download(&self) -> Result<Permit, Status> {
        local_rank(&self.downloads, || {
            format!("{MAX_DOWNLOADS} downloads are under way already; try again")
        })
    }

    /// A place for one upload.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many.
    pub fn upload(&self) -> Result<Permit, Status> {
        local_rank(&self.uploads, || {
            format!("{MAX_UPLOADS} uploads are under way already; try again")
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        lock(&self.live).remove(&self.worker);
    }
}

fn local_rank(of: &Arc<Semaphore>, message: impl FnOnce() -> String) -> Result<Permit, Status> {
    Arc::clone(of)
        .try_acquire_owned()
        .map(Permit)
        .map_err(|_| Status::resource_exhausted(message()))
}

/// A set of numbers is whole after any panic.
fn lock(live: &Mutex<HashSet<u64>>) -> MutexGuard<'_, HashSet<u64>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let gate = Admission::default();
        let local_ranks: Vec<_> = (0..MAX_UPLOADS).map(|_| gate.upload().unwrap()).collect();
        assert_eq!(gate.upload().unwrap_err().code(), Code::ResourceExhausted);
        drop(local_ranks);
        assert!(gate.upload().is_ok());
        let waiting: Vec<_> = (0..MAX_SESSIONS_PENDING)
            .map(|_| gate.session().unwrap())
            .collect();
        assert_eq!(gate.session().unwrap_err().code(), Code::ResourceExhausted);
        drop(waiting);

        let live = gate.live(3);
        assert!(gate.known(3).is_ok());
        assert_eq!(gate.known(4).unwrap_err().code(), Code::NotFound);
        drop(live);
        assert_eq!(gate.known(3).unwrap_err().code(), Code::NotFound);
        let crowd: Vec<_> = (0..MAX_SESSIONS as u64).map(|at| gate.live(at)).collect();
        assert_eq!(gate.session().unwrap_err().code(), Code::ResourceExhausted);
        drop(crowd);
        assert!(gate.session().is_ok());
    }
}
