//! Keeps freed memory in the process.

use crate::ffi;

/// Lets the process keep the memory that it frees, for what it allocates next. A training
/// step frees and allocates the same large tensors each time; glibc would return them to
/// the kernel and have it clear and map every page again.
///
/// For the whole process, whose threads share one arena then; so it does nothing once there
/// are others. Libcs other than glibc ignore it, and where the environment already tells
/// glibc how to allocate, that holds.
pub fn keep_freed_memory() {
    let told = [
        "GLIBC_TUNABLES",
        "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_MAX_",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
    ];
    let free = told.iter().all(|name| std::env::var_os(name).is_none());
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if free && alone {
        // SAFETY: glibc changes these settings without a lock, but no other thread runs.
        unsafe { ffi::kernels_keep_freed_memory() }
    }
}
