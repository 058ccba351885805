//! The fused batch normalisation against libtorch's separate operations.

use std::process::Command;

use c10d::{BatchNorm, Error, Statistics};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// What follows the normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Nothing,
    Relu,
    Add,
    AddRelu,
    ReluMaxPool,
}

const THENS: [Then; 5] = [
    Then::Nothing,
    Then::Relu,
    Then::Add,
    Then::AddRelu,
    Then::ReluMaxPool,
];

struct Layer {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
}

impl Layer {
    /// Weights of both signs: a negative one turns the order of values around.
    fn new(channels: i64) -> Self {
        let ramp = |from: f64, to: f64| Tensor::linspace(from, to, channels, FLOAT);
        Self {
            weight: ramp(-1.5, 2.0).set_requires_grad(true),
            bias: ramp(1.0, -0.5).set_requires_grad(true),
            running_mean: ramp(-0.2, 0.3),
            running_variance: ramp(0.5, 2.0),
        }
    }

    fn fused(&self, x: &Tensor, shortcut: &Tensor, statistics: Statistics, then: Then) -> Tensor {
        let norm = BatchNorm {
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_variance: &self.running_variance,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        };
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
    fn separate(
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

    fn in_double(&self) -> Self {
        let double = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
        Self {
            weight: double(&self.weight).set_requires_grad(true),
            bias: double(&self.bias).set_requires_grad(true),
            running_mean: double(&self.running_mean),
            running_variance: double(&self.running_variance),
        }
    }
}

/// Noise around a mean that is far from zero for some channels.
fn noise([n, c, h, w]: [i64; 4], kind: Kind) -> Tensor {
    let offsets = Tensor::linspace(-3.0, 40.0, c, FLOAT).view([1, c, 1, 1]);
    let plain = Tensor::randn([n, h, w, c], FLOAT).permute([0, 3, 1, 2]);
    (plain + offsets).to_kind(kind)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let b = b.to_kind(Kind::Double);
    let largest = b.abs().max().double_value(&[]).max(1.0);
    (a.to_kind(Kind::Double) - b).abs().max().double_value(&[]) / largest
}

/// Output, gradients of input, shortcut, weight and bias, and the running statistics.
fn everything(
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

fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().set_requires_grad(true)
}

fn compare(shape: [i64; 4], kind: Kind, statistics: Statistics, then: Then, tolerance: f64) {
    let (input, shortcut) = (noise(shape, kind), noise(shape, kind));
    let layer = Layer::new(shape[1]);
    let reference = layer.in_double();
    let (x, s) = (leaf(&input), leaf(&shortcut));
    let y = layer.fused(&x, &s, statistics, then);
    assert_eq!(y.kind(), kind);
    let upstream = Tensor::randn(y.size(), FLOAT).to_kind(kind);
    let found = everything(&layer, &x, &s, &y, &upstream);

    let double = |tensor: &Tensor| {
        tensor
            .detach()
            .to_kind(Kind::Double)
            .set_requires_grad(true)
    };
    let (x, s) = (double(&input), double(&shortcut));
    let y = reference.separate(&x, &s, statistics, then);
    let expected = everything(&reference, &x, &s, &y, &upstream);

    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found.size(), expected.size(), "{name}");
        let off = distance(found, expected);
        assert!(
            off <= tolerance,
            "{name} of {shape:?} {kind:?} {statistics:?} {then:?} is off by {off}"
        );
    }
}

/// 80 channels are one strip of four vectors and one left over; 300 rows are more than a
/// block; 7×5 and 6×6 pool with and without a window that hangs over the edge.
const SHAPES: [[i64; 4]; 4] = [[2, 16, 6, 6], [3, 80, 10, 10], [2, 32, 7, 5], [4, 16, 1, 1]];

#[test]
fn equals_the_separate_operations_in_float32() {
    tch::manual_seed(1);
    for shape in SHAPES {
        for statistics in [Statistics::Batch, Statistics::Running] {
            for then in THENS {
                compare(shape, Kind::Float, statistics, then, 1e-4);
            }
        }
    }
}

#[test]
fn equals_the_separate_operations_in_bfloat16() {
    tch::manual_seed(2);
    for shape in SHAPES {
        for statistics in [Statistics::Batch, Statistics::Running] {
            for then in THENS {
                compare(shape, Kind::BFloat16, statistics, then, 0.02);
            }
        }
    }
}

/// The copies for lesser processors, each in a process of its own: which one runs is
/// decided once.
#[test]
fn every_instruction_set_computes_the_same() {
    for limit in ["default", "avx2"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .env("ATEN_CPU_CAPABILITY", limit)
            .args(["norm::equals", "norm::nan"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{limit}: {said}");
        assert!(said.contains("3 passed"), "{limit}: {said}");
    }
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    tch::manual_seed(3);
    let shape = [4, 32, 20, 20];
    let (input, shortcut) = (noise(shape, Kind::Float), noise(shape, Kind::Float));
    let before = tch::get_num_threads();
    for then in THENS {
        let of = |threads| {
            tch::set_num_threads(threads);
            let layer = Layer::new(shape[1]);
            let (x, s) = (leaf(&input), leaf(&shortcut));
            let y = layer.fused(&x, &s, Statistics::Batch, then);
            let upstream = Tensor::linspace(-1.0, 1.0, y.numel() as i64, FLOAT).view_as(&y);
            everything(&layer, &x, &s, &y, &upstream)
        };
        assert_eq!(of(1), of(3), "{then:?}");
    }
    tch::set_num_threads(before);
}

#[test]
fn nan_stays_visible() {
    for then in THENS {
        for statistics in [Statistics::Batch, Statistics::Running] {
            for kind in [Kind::Float, Kind::BFloat16] {
                let x = noise([2, 16, 6, 6], kind);
                let _ = x.get(0).get(3).get(2).get(2).fill_(f64::NAN);
                let layer = Layer::new(16);
                let y = tch::no_grad(|| layer.fused(&x, &x.zeros_like(), statistics, then));
                let seen = y.isnan().any().int64_value(&[]) == 1;
                assert!(seen, "{then:?} {statistics:?} {kind:?}");
                // Other channels are none of its business.
                assert!(y.get(1).get(2).isnan().any().int64_value(&[]) == 0);
            }
        }
    }
}

#[test]
fn any_memory_format_will_do() {
    tch::manual_seed(4);
    let x = noise([2, 16, 6, 6], Kind::Float);
    let plain = x.contiguous();
    for then in THENS {
        let of = |x: &Tensor| {
            let layer = Layer::new(16);
            tch::no_grad(|| layer.fused(x, x, Statistics::Batch, then))
        };
        let y = of(&plain);
        assert_eq!(y, of(&x));
        assert_eq!(y.stride()[1], 1);
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    let layer = Layer::new(16);
    let norm = BatchNorm {
        weight: &layer.weight,
        bias: &layer.bias,
        running_mean: &layer.running_mean,
        running_variance: &layer.running_variance,
        momentum: MOMENTUM,
        epsilon: EPSILON,
    };
    let good = noise([2, 16, 6, 6], Kind::Float);
    let refused = |result: Result<Tensor, Error>, why: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    };
    for (x, why) in [
        (noise([2, 32, 6, 6], Kind::Float), "weight must be 32"),
        (noise([2, 24, 6, 6], Kind::Float), "multiple of 16"),
        (noise([2, 16, 6, 6], Kind::Double), "float32 or bfloat16"),
        (good.get(0), "[N, C, H, W]"),
        (good.narrow(0, 0, 0), "[N, C, H, W]"),
    ] {
        refused(norm.forward(&x, None, Statistics::Batch), why);
        refused(norm.forward_relu_max_pool(&x, Statistics::Batch), why);
    }
    let other = noise([2, 16, 6, 5], Kind::Float);
    refused(
        norm.forward(&good, Some(&other), Statistics::Batch),
        "residual must be like the input",
    );
}
