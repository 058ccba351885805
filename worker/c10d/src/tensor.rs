//! Tensor operations that tch does not offer: memory format and gradients in place.

use std::ffi::{CStr, c_char};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{Error, check};
use crate::ffi::{self, Status};

/// The version of libtorch that this crate was compiled against, as `2.11.0`.
pub fn libtorch_version() -> String {
    // SAFETY: the shim returns a NUL-terminated string literal.
    unsafe { literal(ffi::c10d_libtorch_version()) }
}

/// # Safety
/// `text` is a NUL-terminated string literal of the shim.
pub(crate) unsafe fn literal(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
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
    // SAFETY: the tensor is alive for the call, and `out` is writable.
    let call = |out| unsafe { ffi::c10d_to_channels_last(tensor.as_ptr().cast_mut(), out) };
    made_by("converting to channels_last", call)
}

/// The tensor that `call` makes: where it does not fail, it leaves a new at::Tensor of the heap
/// in its argument.
pub(crate) fn made_by(
    operation: &'static str,
    call: impl FnOnce(*mut *mut C_tensor) -> Status,
) -> Result<Tensor, Error> {
    let mut out = std::ptr::null_mut();
    check(call(&mut out)).map_err(|failure| failure.of(operation))?;
    // SAFETY: without a failure, `out` is a new at::Tensor, which tch takes over and deletes.
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
