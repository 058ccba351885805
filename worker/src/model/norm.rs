//! Batch normalisation, together with the ReLU, the sum and the pooling that follow it in a
//! residual network. On a CPU they are one operation of the crate `kernels`; elsewhere libtorch's
//! own, one after the other.
//!
//! libtorch has no operation for CUDA that fuses them, and computes the normalisation of bf16 by its
//! own kernels for channels-last tensors, not by cuDNN's. To fuse them would take an autograd
//! function around cuDNN's graph API (`cudnn_frontend`), whose headers no wheel of torch has, and a
//! GPU on which its parity and its gain are measured.

use kernels::Statistics;
use tch::{Device, Kind, Tensor};

/// The weight of a new batch in the running statistics, and the variance's floor: PyTorch's
/// defaults, which torchvision keeps.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// One layer's tensors, `[C]` and on one device.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) running_mean: Tensor,
    pub(super) running_var: Tensor,
}

impl Norm {
    /// norm(x)
    pub(super) fn forward(&self, x: &Tensor, mode: Statistics) -> Tensor {
        match self.fused(x) {
            Some(fused) => made(fused.forward(x, None, mode)),
            None => self.normalise(x, mode),
        }
    }

    /// relu(norm(x))
    pub(super) fn forward_relu(&self, x: &Tensor, mode: Statistics) -> Tensor {
        match self.fused(x) {
            Some(fused) => made(fused.forward_relu(x, None, mode)),
            None => self.normalise(x, mode).relu_(),
        }
    }

    /// relu(norm(x) + shortcut)
    pub(super) fn forward_add_relu(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        mode: Statistics,
    ) -> Tensor {
        match self.fused(x) {
            Some(fused) => made(fused.forward_relu(x, Some(shortcut), mode)),
            None => self.normalise(x, mode).g_add_(shortcut).relu_(),
        }
    }

    /// max_pool(relu(norm(x))), 3×3 with stride 2
    pub(super) fn forward_relu_max_pool(&self, x: &Tensor, mode: Statistics) -> Tensor {
        match self.fused(x) {
            Some(fused) => made(fused.forward_relu_max_pool(x, mode)),
            None => {
                let activated = self.normalise(x, mode).relu_();
                activated.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)
            }
        }
    }

    /// On a CPU, for the types that training computes in.
    fn fused(&self, x: &Tensor) -> Option<kernels::BatchNorm<'_>> {
        let kind = matches!(x.kind(), Kind::Float | Kind::BFloat16);
        (x.device() == Device::Cpu && kind && x.numel() > 0).then_some(kernels::BatchNorm {
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_variance: &self.running_var,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        })
    }

    /// Its result may be changed in place: autograd needs the input, not the output.
    fn normalise(&self, x: &Tensor, mode: Statistics) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Statistics::Batch,
            MOMENTUM,
            EPSILON,
            true,
        )
    }
}

/// What tch's own operations do with a refusal.
fn made(result: Result<Tensor, kernels::Error>) -> Tensor {
    result.unwrap_or_else(|error| panic!("{error}"))
}
