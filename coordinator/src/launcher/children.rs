//! The ids of the processes that run, so that none survives a coordinator that ends at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::watch;

/// Shared by the launcher and whoever has to end everything.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<BTreeSet<u32>>>);

impl Children {
    pub(super) fn add(&self, pid: u32) {
        self.lock().insert(pid);
    }

    pub(super) fn remove(&self, pid: u32) {
        self.lock().remove(&pid);
    }

    /// Kills all of them.
    pub fn kill(&self) {
        for pid in self.lock().iter() {
            watch::signal(*pid, Signal::KILL);
        }
    }

    /// A set of numbers stays usable when somebody panicked.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
