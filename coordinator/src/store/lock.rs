//! One coordinator for a run directory: an advisory lock on a file in it, which the kernel
//! drops with the process that held it, however that ends.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StoreError;

/// The lock's file. It stays behind, because a lock on a removed file excludes no process.
pub const LOCK: &str = "lock";

/// A child that is about to start its own program shares the lock until then, even if its parent
/// has just died.
const MOMENT: Duration = Duration::from_millis(300);

/// Held for as long as it lives. Workers started meanwhile do not inherit it: the standard
/// library opens files close-on-exec.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "it only has to stay open")] File);

impl Lock {
    /// Takes the lock of the directory `root`.
    ///
    /// # Errors
    /// [`StoreError::Active`] when another process holds it for more than a moment,
    /// [`StoreError::Write`] when the file cannot be created or the file system has no locks.
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let path = root.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::write(&path))?;
        let give_up = Instant::now() + MOMENT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < give_up => {
                    std::thread::sleep(MOMENT / 30);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(StoreError::Active {
                        path: root.to_owned(),
                    });
                }
                Err(error) => return Err(StoreError::write(&path)(error.into())),
            }
        }
    }
}
