//! The ids of the processes that run, so that none survives a coordinator that ends at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::process;

/// Shared by the launcher and the signal handler, which may have to end every worker at once.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<BTreeSet<u32>>>);

impl Children {
    pub(super) fn add(&self, pid: u32) {
        self.lock().insert(pid);
    }

    pub(super) fn remove(&self, pid: u32) {
        self.lock().remove(&pid);
    }

    /// Sends SIGKILL to all of them.
    pub fn kill(&self) {
        for pid in self.lock().iter() {
            process::signal(*pid, Signal::KILL);
        }
    }

    /// A set of numbers stays usable after a panic.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
