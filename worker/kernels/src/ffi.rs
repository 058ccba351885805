//! The C interface of `csrc/`, as `csrc/abi.h` declares and documents it. It only declares
//! functions: the modules above uphold the preconditions.

use std::ffi::c_char;

use shim::Status;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{Error, of};

#[repr(C)]
pub(crate) struct AdamOptions {
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
}

#[repr(C)]
pub(crate) struct NormLayer {
    pub(crate) weight: *mut C_tensor,
    pub(crate) bias: *mut C_tensor,
    pub(crate) running_mean: *mut C_tensor,
    pub(crate) running_variance: *mut C_tensor,
    pub(crate) batch: i32,
    pub(crate) momentum: f64,
    pub(crate) epsilon: f64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct AutocastState {
    pub(crate) enabled: i32,
    pub(crate) dtype: i32,
}

type Tensors = *const *mut C_tensor;

unsafe extern "C" {
    pub(crate) fn kernels_keep_freed_memory();

    pub(crate) fn kernels_zero_grads(tensors: Tensors, count: usize) -> Status;
    pub(crate) fn kernels_clear_grads(tensors: Tensors, count: usize) -> Status;
    pub(crate) fn kernels_move_grads(tensors: Tensors, places: Tensors, count: usize) -> Status;
    pub(crate) fn kernels_adam_step(
        params: Tensors,
        exp_avgs: Tensors,
        exp_avg_sqs: Tensors,
        steps: Tensors,
        count: usize,
        learning_rate: *mut C_tensor,
        options: *const AdamOptions,
    ) -> Status;

    pub(crate) fn kernels_batch_norm(
        x: *mut C_tensor,
        layer: *const NormLayer,
        residual: *mut C_tensor,
        relu: i32,
        out: *mut *mut C_tensor,
    ) -> Status;
    pub(crate) fn kernels_batch_norm_relu_max_pool(
        x: *mut C_tensor,
        layer: *const NormLayer,
        out: *mut *mut C_tensor,
    ) -> Status;
    pub(crate) fn kernels_batch_norm_instruction_set() -> *const c_char;

    pub(crate) fn kernels_autocast_enter(device_type: i32, previous: *mut AutocastState) -> Status;
    pub(crate) fn kernels_autocast_leave(device_type: i32, previous: *const AutocastState);
}

/// The tensors as the interface wants them; valid as long as `tensors` is borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors
        .iter()
        .map(|tensor| tensor.as_ptr().cast_mut())
        .collect()
}

/// The tensor that `call` makes: unless it fails, it leaves a new at::Tensor of the heap in its
/// argument.
pub(crate) fn new_tensor(
    operation: &'static str,
    call: impl FnOnce(*mut *mut C_tensor) -> Status,
) -> Result<Tensor, Error> {
    let mut out = std::ptr::null_mut();
    call(&mut out).check().map_err(of(operation))?;
    // SAFETY: without a failure, `out` is a new at::Tensor, which tch takes over and deletes.
    Ok(unsafe { Tensor::from_ptr(out) })
}
