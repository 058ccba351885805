//! One fused step of Adam, which tch does not wrap, and gradients set to zero in place. It holds
//! no state: the moments belong to the caller.

use tch::Tensor;

use crate::error::{Error, of};
use crate::ffi;

/// The hyperparameters of one step (Kingma and Ba, "Adam", arXiv 1412.6980), with
/// weight decay added to the gradient, as `torch.optim.Adam` does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamOptions {
    /// The decay of the first moment.
    pub beta1: f64,
    /// The decay of the second moment.
    pub beta2: f64,
    /// What is added to the denominator.
    pub epsilon: f64,
    /// The L2 penalty.
    pub weight_decay: f64,
}

impl Default for AdamOptions {
    /// PyTorch's: betas 0.9 and 0.999, epsilon 1e-8, no weight decay.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// Updates `parameters` from their `.grad`s in place, and with them the moments
/// (`exp_avgs`, `exp_avg_sqs`: zero at first, shaped and strided like the parameters)
/// and `steps` (one float32 element each, 0 at first, on the parameters' device).
/// All parameters on one device. One without a gradient is skipped, its state too.
///
/// The step size is a tensor `[]` on that device, so that a recorded step reads it each time:
/// float64 on a CPU, float32 on a GPU.
///
/// # Errors
/// [`Error::LengthMismatch`]; [`Error::Failed`] when a parameter, its gradient and its
/// moments lie differently in memory, which the fused kernels cannot handle.
pub fn adam_step(
    parameters: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    learning_rate: &Tensor,
    options: &AdamOptions,
) -> Result<(), Error> {
    let operation = "the Adam step";
    for (name, list) in [
        ("first moments", exp_avgs),
        ("second moments", exp_avg_sqs),
        ("step counts", steps),
    ] {
        if list.len() != parameters.len() {
            let (expected, found) = (parameters.len(), list.len());
            return Err(Error::LengthMismatch {
                operation,
                name,
                expected,
                found,
            });
        }
    }
    let lists = [parameters, exp_avgs, exp_avg_sqs, steps].map(ffi::pointers);
    let options = ffi::AdamOptions {
        beta1: options.beta1,
        beta2: options.beta2,
        epsilon: options.epsilon,
        weight_decay: options.weight_decay,
    };
    // SAFETY: the tensors are alive for the call, and the lists are equally long, as
    // checked above. The shim checks that they agree in shape and memory order.
    let status = unsafe {
        ffi::kernels_adam_step(
            lists[0].as_ptr(),
            lists[1].as_ptr(),
            lists[2].as_ptr(),
            lists[3].as_ptr(),
            parameters.len(),
            learning_rate.as_ptr().cast_mut(),
            &options,
        )
    };
    status.check().map_err(of(operation))
}

/// Sets the gradients of `tensors` to zero in place, whatever memory they share with
/// the reducer's buckets. Tensors without a gradient are left alone.
///
/// # Errors
/// [`Error::Failed`] when libtorch refuses.
pub fn zero_grads(tensors: &[Tensor]) -> Result<(), Error> {
    let pointers = ffi::pointers(tensors);
    // SAFETY: the tensors are alive for the call; the count is the list's own.
    unsafe { ffi::kernels_zero_grads(pointers.as_ptr(), pointers.len()) }
        .check()
        .map_err(of("zeroing gradients"))
}

/// Drops the gradients of `tensors`: the next backward pass leaves its own there, and does not
/// add them to zeros.
///
/// # Errors
/// [`Error::Failed`] when libtorch refuses.
pub fn clear_grads(tensors: &[Tensor]) -> Result<(), Error> {
    let pointers = ffi::pointers(tensors);
    // SAFETY: the tensors are alive for the call; the count is the list's own.
    unsafe { ffi::kernels_clear_grads(pointers.as_ptr(), pointers.len()) }
        .check()
        .map_err(of("dropping gradients"))
}

/// Copies each gradient to its place, which is the gradient from then on.
///
/// # Errors
/// [`Error::LengthMismatch`]; [`Error::Failed`] when a gradient is missing or has another shape.
pub fn move_grads(tensors: &[Tensor], places: &[Tensor]) -> Result<(), Error> {
    let operation = "moving gradients";
    if places.len() != tensors.len() {
        return Err(Error::LengthMismatch {
            operation,
            name: "places",
            expected: tensors.len(),
            found: places.len(),
        });
    }
    let (pointers, places) = (ffi::pointers(tensors), ffi::pointers(places));
    // SAFETY: all tensors are alive for the call, and the lists are equally long, as checked
    // above.
    unsafe { ffi::kernels_move_grads(pointers.as_ptr(), places.as_ptr(), pointers.len()) }
        .check()
        .map_err(of(operation))
}
