//! What libtorch and CUDA take from the environment of the process, and how the process ends.

use crate::error::Error;

/// What the watchdog of a process group does, so that a broken group ends and its process goes
/// on. By default it ends the process.
const DEFAULTS: [(&str, &str); 6] = [
    // When a collective fails or is too slow, the watchdog aborts the communicator: the device
    // stops waiting, and nothing else happens.
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"),
    // No report on the collectives of all ranks, for which a failed group waits a minute.
    ("TORCH_NCCL_DUMP_ON_TIMEOUT", "0"),
    ("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "0"),
    ("TORCH_FR_BUFFER_SIZE", "0"),
    // No second watchdog, which a group joins when it ends, after eight minutes.
    ("TORCH_NCCL_ENABLE_MONITORING", "0"),
    // Switches that reduce cannot be taken over by the next group of a process.
    ("NCCL_NVLS_ENABLE", "0"),
];

/// Sets the variables that this crate's groups rely on, where the user has not.
///
/// # Errors
/// [`Error::Threads`]: another thread may read the environment at the same time.
pub fn prepare() -> Result<(), Error> {
    for (name, value) in DEFAULTS {
        if std::env::var_os(name).is_none() {
            set(name, value)?;
        }
    }
    Ok(())
}

/// Ends the process at once. Nothing is destroyed that a thread of it still uses: libtorch's
/// threads, and those that are stuck in a collective, have no way to end before.
pub fn exit(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { _exit(code) }
}

fn set(name: &str, value: &str) -> Result<(), Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Error::Threads { threads });
    }
    // SAFETY: this is the only thread, so nobody reads the environment.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

unsafe extern "C" {
    fn _exit(code: i32) -> !;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_other_threads_is_left_alone() {
        // The harness of the tests has a thread beside this one.
        assert!(matches!(
            set("A", "b"),
            Err(Error::Threads { threads: 2.. })
        ));
        assert_eq!(std::env::var_os("A"), None);
    }
}
