//! Limits how many sessions and transfers there are at a time, and knows which workers have a live
//! session. It reads no message.

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

/// One of a limited number of sessions or transfers, until dropped.
#[derive(Debug)]
pub struct Permit(#[allow(dead_code, reason = "dropping it releases it")] OwnedSemaphorePermit);

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
    /// A permit for a session that has not sent its `Register` yet.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many such sessions, or too many at all.
    pub fn session(&self) -> Result<Permit, Status> {
        if lock(&self.live).len() >= MAX_SESSIONS {
            return Err(exhausted(MAX_SESSIONS, "sessions are open"));
        }
        acquire(&self.pending, MAX_SESSIONS_PENDING, "sessions are starting")
    }

    /// Notes that `worker` has a session, from its `Register` on.
    #[must_use]
    pub fn live(&self, worker: u64) -> Live {
        lock(&self.live).insert(worker);
        Live {
            worker,
            live: Arc::clone(&self.live),
        }
    }

    /// Checks that `worker` may transfer files: it has a live session.
    ///
    /// # Errors
    /// `NOT_FOUND` when `worker` has no session.
    pub fn known(&self, worker: u64) -> Result<(), Status> {
        if lock(&self.live).contains(&worker) {
            return Ok(());
        }
        Err(Status::not_found(format!("worker {worker} has no session")))
    }

    /// A permit for one download.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many.
    pub fn download(&self) -> Result<Permit, Status> {
        acquire(&self.downloads, MAX_DOWNLOADS, "downloads are in progress")
    }

    /// A permit for one upload, once there is one. An upload that waits holds no data, and a
    /// refused one would cost its worker: the disk may be slow without anyone's fault.
    ///
    /// # Errors
    /// None: the semaphore is never closed.
    pub async fn upload(&self) -> Result<Permit, Status> {
        let permit = Arc::clone(&self.uploads).acquire_owned().await;
        permit
            .map(Permit)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        lock(&self.live).remove(&self.worker);
    }
}

fn acquire(permits: &Arc<Semaphore>, limit: usize, what: &str) -> Result<Permit, Status> {
    let permit = Arc::clone(permits).try_acquire_owned();
    permit.map(Permit).map_err(|_| exhausted(limit, what))
}

fn exhausted(limit: usize, what: &str) -> Status {
    Status::resource_exhausted(format!("{limit} {what}, the maximum; try again"))
}

/// A set of numbers is valid after any panic.
fn lock(live: &Mutex<HashSet<u64>>) -> MutexGuard<'_, HashSet<u64>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn an_upload_waits_for_a_place() {
        let admission = Admission::default();
        let mut permits = Vec::new();
        for _ in 0..MAX_UPLOADS {
            permits.push(admission.upload().await.unwrap());
        }
        let late = admission.clone();
        let late = tokio::spawn(async move { late.upload().await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!late.is_finished());
        permits.pop();
        assert!(late.await.unwrap().is_ok());
    }

    #[test]
    fn permits_are_limited_and_released() {
        let admission = Admission::default();
        let waiting: Vec<_> = (0..MAX_SESSIONS_PENDING)
            .map(|_| admission.session().unwrap())
            .collect();
        assert_eq!(
            admission.session().unwrap_err().code(),
            Code::ResourceExhausted
        );
        drop(waiting);

        let live = admission.live(3);
        assert!(admission.known(3).is_ok());
        assert_eq!(admission.known(4).unwrap_err().code(), Code::NotFound);
        drop(live);
        assert_eq!(admission.known(3).unwrap_err().code(), Code::NotFound);
        let crowd: Vec<_> = (0..MAX_SESSIONS as u64)
            .map(|at| admission.live(at))
            .collect();
        assert_eq!(
            admission.session().unwrap_err().code(),
            Code::ResourceExhausted
        );
        drop(crowd);
        assert!(admission.session().is_ok());
    }
}
