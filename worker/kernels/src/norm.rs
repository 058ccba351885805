//! Batch normalisation fused with what follows it in a residual network, for the CPU:
//! there libtorch's separate operations take as long as the convolutions between them,
//! because each walks all of the activations' memory.

use std::ffi::CStr;

use tch::Tensor;

use crate::error::Error;
use crate::ffi;

const OPERATION: &str = "the fused batch normalisation";

/// Which mean and variance normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// The batch's, which also move the running ones.
    Batch,
    /// The running ones, which stay as they are.
    Running,
}

/// What the loops of the fused operations were compiled for: `baseline`, `avx2` or `avx512`.
/// The best that the processor has and that `ATEN_CPU_CAPABILITY` allows, as for libtorch's.
pub fn batch_norm_instruction_set() -> String {
    // SAFETY: the C interface returns a NUL-terminated string literal.
    let name = unsafe { CStr::from_ptr(ffi::kernels_batch_norm_instruction_set()) };
    name.to_string_lossy().into_owned()
}

/// One layer: float32 tensors of shape `[C]` on the CPU, and PyTorch's two constants.
///
/// Its functions take float32 or bfloat16 activations `[N, C, H, W]` on the CPU, C a
/// multiple of 16, not empty, and of more than one value a channel where the batch's
/// statistics normalise. They compute in float32, give channels_last in the input's type,
/// and are differentiable once, in input, residual, weight and bias. Results do not depend
/// on the number of threads.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// What the normalised values are multiplied with.
    pub weight: &'a Tensor,
    /// What is added then.
    pub bias: &'a Tensor,
    /// The running mean.
    pub running_mean: &'a Tensor,
    /// The running, unbiased variance.
    pub running_variance: &'a Tensor,
    /// How far one batch moves the running statistics, in 0–1.
    pub momentum: f64,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl BatchNorm<'_> {
    /// The normalised input, plus `residual` (like the input in shape and type).
    ///
    /// # Errors
    /// [`Error::Failed`] when a tensor is not as the type asks.
    pub fn forward(
        &self,
        input: &Tensor,
        residual: Option<&Tensor>,
        statistics: Statistics,
    ) -> Result<Tensor, Error> {
        self.normalise(input, residual, statistics, false)
    }

    /// As [`forward`](Self::forward), with ReLU after the sum.
    ///
    /// # Errors
    /// [`Error::Failed`] when a tensor is not as the type asks.
    pub fn forward_relu(
        &self,
        input: &Tensor,
        residual: Option<&Tensor>,
        statistics: Statistics,
    ) -> Result<Tensor, Error> {
        self.normalise(input, residual, statistics, true)
    }

    /// The normalised input past ReLU and a max-pooling of 3×3, stride 2 and padding 1.
    /// Among equal values of a window the gradient goes to the first.
    ///
    /// # Errors
    /// [`Error::Failed`] when a tensor is not as the type asks.
    pub fn forward_relu_max_pool(
        &self,
        input: &Tensor,
        statistics: Statistics,
    ) -> Result<Tensor, Error> {
        let layer = self.layer(statistics);
        // SAFETY: the input and the layer's tensors are alive for the call; `out` is
        // writable. The shim checks types, shapes and devices.
        ffi::new_tensor(OPERATION, |out| unsafe {
            ffi::kernels_batch_norm_relu_max_pool(input.as_ptr().cast_mut(), &layer, out)
        })
    }

    fn normalise(
        &self,
        input: &Tensor,
        residual: Option<&Tensor>,
        statistics: Statistics,
        relu: bool,
    ) -> Result<Tensor, Error> {
        let layer = self.layer(statistics);
        let residual = residual.map_or(std::ptr::null_mut(), |tensor| tensor.as_ptr().cast_mut());
        // SAFETY: the input, the layer's tensors and the residual, unless null, are alive
        // for the call; `out` is writable. The shim checks types, shapes and devices.
        ffi::new_tensor(OPERATION, |out| unsafe {
            ffi::kernels_batch_norm(
                input.as_ptr().cast_mut(),
                &layer,
                residual,
                i32::from(relu),
                out,
            )
        })
    }

    fn layer(&self, statistics: Statistics) -> ffi::NormLayer {
        ffi::NormLayer {
            weight: self.weight.as_ptr().cast_mut(),
            bias: self.bias.as_ptr().cast_mut(),
            running_mean: self.running_mean.as_ptr().cast_mut(),
            running_variance: self.running_variance.as_ptr().cast_mut(),
            batch: i32::from(statistics == Statistics::Batch),
            momentum: self.momentum,
            epsilon: self.epsilon,
        }
    }
}
