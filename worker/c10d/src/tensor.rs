//! What tch does not offer of tensors and their memory: memory format, gradients in place,
//! freed memory kept.

use std::ffi::CStr;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{Error, check};
use crate::ffi;

/// The version of libtorch that this crate was compiled against, as `2.11.0`.
pub fn libtorch_version() -> String {
    // SAFETY: the shim returns a NUL-terminated string literal.
    unsafe { CStr::from_ptr(ffi::c10d_libtorch_version()) }
        .to_string_lossy()
        .into_owned()
}

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
        unsafe { ffi::c10d_keep_freed_memory() }
    }
}

/// `tensor` (4 dimensions: N, C, H, W) with the channels innermost in memory. Copies
/// only where the order of the elements must change; otherwise the result shares the
/// memory. Differentiable.
///
/// The strides are channels_last's everywhere, also for a 1×1 convolution's weight,
/// for which PyTorch itself keeps the plain ones: its gradient has these, and DDP and
/// the fused optimizers are slow, or refuse, when the two differ.
///
/// # Errors
/// [`Error::Failed`] unless it has 4 dimensions.
pub fn to_channels_last(tensor: &Tensor) -> Result<Tensor, Error> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensor is alive for the call, and `out` is writable.
    check(unsafe { ffi::c10d_to_channels_last(tensor.as_ptr().cast_mut(), &mut out) })
        .map_err(|failure| failure.of("converting to channels_last"))?;
    // SAFETY: `out` is a new at::Tensor on the heap, which tch takes over and deletes.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Sets the gradients of `tensors` to zero in place, whatever memory they share with
/// the reducer's buckets. Tensors without a gradient are left alone.
///
/// # Errors
/// [`Error::Failed`] when libtorch refuses.
pub fn zero_grads(tensors: &[Tensor]) -> Result<(), Error> {
    let pointers = pointers(tensors);
    // SAFETY: the tensors are alive for the call; the count is the list's own.
    check(unsafe { ffi::c10d_zero_grads(pointers.as_ptr(), pointers.len()) })
        .map_err(|failure| failure.of("zeroing gradients"))
}

/// The tensors as the shim wants them; valid as long as `tensors` is borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors
        .iter()
        .map(|tensor| tensor.as_ptr().cast_mut())
        .collect()
}
