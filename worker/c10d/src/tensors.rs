//! What training needs and tch lacks: memory format, autocast, fused Adam.

use std::ffi::CStr;
use std::ptr::null_mut;

use tch::{Device, Tensor};

use crate::error::{Error, check};
use crate::ffi;
use crate::process_group::pointers;

/// The version of the libtorch that this was compiled against.
pub fn libtorch_version() -> String {
    // SAFETY: the shim returns a string literal.
    unsafe { CStr::from_ptr(ffi::shim_libtorch_version()) }
        .to_string_lossy()
        .into_owned()
}

/// A copy of a tensor of four dimensions in channels_last memory format, or the tensor itself
/// where it is in that format already.
///
/// # Errors
/// For any other number of dimensions.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor, Error> {
    let mut result = null_mut();
    // SAFETY: the tensor is alive for the call.
    check("convert to channels_last", unsafe {
        ffi::shim_channels_last(tensor.as_ptr().cast_mut().cast(), &mut result)
    })?;
    // SAFETY: on success the result is a fresh at::Tensor*, as tch itself makes them; the
    // clone holds its own reference. tch offers no way to take ownership, so the small
    // handle is released by wrapping it once.
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

/// Sets the gradients of `parameters` to zero where they are, which bucket views require.
///
/// # Errors
/// When libtorch refuses.
pub fn zero_grads(parameters: &[Tensor]) -> Result<(), Error> {
    let pointers = pointers(parameters);
    // SAFETY: the tensors are alive for the call.
    check("zero the gradients", unsafe {
        ffi::shim_zero_grads(pointers.as_ptr(), pointers.len())
    })
}

/// Runs `work` with operations in bf16 where autocast deems them safe.
pub fn autocast_bf16<T>(device: Device, work: impl FnOnce() -> T) -> T {
    struct Restore(bool, bool, i32);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: takes values only; undoes the call below on the same thread.
            unsafe { ffi::shim_autocast_exit(self.0, self.1, self.2) }
        }
    }
    let cuda = device.is_cuda();
    let (mut previous, mut previous_type) = (false, 0);
    // SAFETY: both pointers are to locals.
    unsafe { ffi::shim_autocast_enter(cuda, &mut previous, &mut previous_type) }
    let _restore = Restore(cuda, previous, previous_type);
    work()
}

/// What Adam's update needs besides the rate (Kingma, Ba: "Adam", 2015).
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Decay of the averages of the gradients and of their squares.
    pub betas: (f64, f64),
    /// Keeps the division finite.
    pub epsilon: f64,
    /// L2 penalty, added to the gradients.
    pub weight_decay: f64,
}

impl Adam {
    /// One update of `parameters` by their gradients at `rate`, with libtorch's fused kernel.
    /// `steps` are float scalars and count up. All lists have the same length.
    ///
    /// # Errors
    /// When a gradient is missing or the lists do not fit.
    pub fn step(
        &self,
        parameters: &[Tensor],
        averages: &[Tensor],
        squares: &[Tensor],
        steps: &[Tensor],
        rate: f64,
    ) -> Result<(), Error> {
        let count = parameters.len();
        if [averages.len(), squares.len(), steps.len()] != [count; 3] {
            return Err(Error::new("update by Adam", "the lists differ in length"));
        }
        let lists = [parameters, averages, squares, steps].map(pointers);
        // SAFETY: four arrays of `count` live tensors each.
        check("update by Adam", unsafe {
            ffi::shim_fused_adam(
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                count,
                rate,
                self.betas.0,
                self.betas.1,
                self.weight_decay,
                self.epsilon,
            )
        })
    }
}
