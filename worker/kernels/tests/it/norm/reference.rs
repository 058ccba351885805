//! One layer, fused and in libtorch's separate operations, and what is compared of both.

use kernels::{BatchNorm, Statistics};
use tch::{Device, Kind, Tensor};

pub(super) const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
pub(super) const MOMENTUM: f64 = 0.1;
pub(super) const EPSILON: f64 = 1e-5;

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Nothing,
    Relu,
    Add,
    AddRelu,
    ReluMaxPool,
}

pub(super) const THENS: [Then; 5] = [
    Then::Nothing,
    Then::Relu,
    Then::Add,
    Then::AddRelu,
    Then::ReluMaxPool,
];

pub(super) struct Layer {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) running_mean: Tensor,
    pub(super) running_variance: Tensor,
}

impl Layer {
    /// Weights of both signs: a negative one turns the order of values around.
    pub(super) fn new(channels: i64) -> Self {
        let ramp = |from: f64, to: f64| Tensor::linspace(from, to, channels, FLOAT);
        Self {
            weight: ramp(-1.5, 2.0).set_requires_grad(true),
            bias: ramp(1.0, -0.5).set_requires_grad(true),
            running_mean: ramp(-0.2, 0.3),
            running_variance: ramp(0.5, 2.0),
        }
    }

    pub(super) fn norm(&self) -> BatchNorm<'_> {
        BatchNorm {
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_variance: &self.running_variance,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        }
    }

    pub(super) fn fused(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        statistics: Statistics,
        then: Then,
    ) -> Tensor {
        let norm = self.norm();
        match then {
            Then::Nothing => norm.forward(x, None, statistics),
            Then::Relu => norm.forward_relu(x, None, statistics),
            Then::Add => norm.forward(x, Some(shortcut), statistics),
            Then::AddRelu => norm.forward_relu(x, Some(shortcut), statistics),
            Then::ReluMaxPool => norm.forward_relu_max_pool(x, statistics),
        }
        .unwrap()
    }

    /// In float64, so that what is left is the fused kernels' own error.
    pub(super) fn separate(
        &self,
        x: &Tensor,
        shortcut: &Tensor,
        statistics: Statistics,
        then: Then,
    ) -> Tensor {
        let y = x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_variance),
            statistics == Statistics::Batch,
            MOMENTUM,
            EPSILON,
            false,
        );
        match then {
            Then::Nothing => y,
            Then::Relu => y.relu(),
            Then::Add => y + shortcut,
            Then::AddRelu => (y + shortcut).relu(),
            Then::ReluMaxPool => y.relu().max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false),
        }
    }

    pub(super) fn in_double(&self) -> Self {
        let double = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
        Self {
            weight: double(&self.weight).set_requires_grad(true),
            bias: double(&self.bias).set_requires_grad(true),
            running_mean: double(&self.running_mean),
            running_variance: double(&self.running_variance),
        }
    }
}

/// Noise around a mean that is far from zero for some channels. The same each time, whatever
/// other tests draw meanwhile: a value next to ReLU's edge would be cut in one precision only.
pub(super) fn noise([n, c, h, w]: [i64; 4], kind: Kind) -> Tensor {
    let offsets = Tensor::linspace(-3.0, 40.0, c, FLOAT).view([1, c, 1, 1]);
    let plain = draws(n * h * w * c)
        .view([n, h, w, c])
        .permute([0, 3, 1, 2]);
    (plain + offsets).to_kind(kind)
}

/// About normal: sums of four uniform numbers, of a multiplicative generator (L'Ecuyer,
/// "Tables of linear congruential generators", 1999).
pub(super) fn draws(count: i64) -> Tensor {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(2_862_933_555_777_941_757)
            .wrapping_add(3_037_000_493);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut normal = || (0..4).map(|_| uniform()).sum::<f32>().mul_add(1.7, -3.4);
    let values: Vec<f32> = (0..count).map(|_| normal()).collect();
    Tensor::from_slice(&values)
}

/// The largest difference of any channel, as a share of that channel's largest value or of 1.
pub(super) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let by_channel = |tensor: &Tensor| {
        let double = tensor.to_kind(Kind::Double);
        match double.dim() {
            4 => double.transpose(0, 1).flatten(1, -1),
            _ => double.unsqueeze(1),
        }
    };
    let (a, b) = (by_channel(a), by_channel(b));
    let largest = b.abs().amax([1], false).clamp_min(1.0);
    let off = (a - b).abs().amax([1], false) / largest;
    off.max().double_value(&[])
}

/// Output, gradients of input, shortcut, weight and bias, and the running statistics.
pub(super) fn everything(
    layer: &Layer,
    x: &Tensor,
    shortcut: &Tensor,
    output: &Tensor,
    upstream: &Tensor,
) -> Vec<(&'static str, Tensor)> {
    (output * upstream.to_kind(output.kind()))
        .sum(output.kind())
        .backward();
    let mut all = vec![
        ("output", output.detach()),
        ("input's gradient", x.grad()),
        ("weight's gradient", layer.weight.grad()),
        ("bias's gradient", layer.bias.grad()),
        ("running mean", layer.running_mean.shallow_clone()),
        ("running variance", layer.running_variance.shallow_clone()),
    ];
    if shortcut.grad().defined() {
        all.push(("shortcut's gradient", shortcut.grad()));
    }
    all
}

pub(super) fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().set_requires_grad(true)
}

/// A leaf of the same values in float64.
pub(super) fn double(tensor: &Tensor) -> Tensor {
    leaf(&tensor.to_kind(Kind::Double))
}
