//! The fused batch normalisation against libtorch's separate operations.

use std::process::Command;

use c10d::{BatchNorm, Error, Statistics, batch_norm_instruction_set};
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

/// Noise around a mean that is far from zero for some channels. The same each time, whatever
/// other tests draw meanwhile: a value next to ReLU's edge would be cut in one precision only.
fn noise([n, c, h, w]: [i64; 4], kind: Kind) -> Tensor {
    let offsets = Tensor::linspace(-3.0, 40.0, c, FLOAT).view([1, c, 1, 1]);
    let plain = draws(n * h * w * c)
        .view([n, h, w, c])
        .permute([0, 3, 1, 2]);
    (plain + offsets).to_kind(kind)
}

/// About normal: sums of four uniform numbers, of a multiplicative generator (L'Ecuyer,
/// "Tables of linear congruential generators", 1999).
fn draws(count: i64) -> Tensor {
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
fn distance(a: &Tensor, b: &Tensor) -> f64 {
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

/// What is float32 is exact also where activations are not.
fn compare(shape: [i64; 4], kind: Kind, statistics: Statistics, then: Then) {
    let input = noise(shape, kind);
    let shortcut = input.flip([0, 2]).contiguous();
    let layer = Layer::new(shape[1]);
    let reference = layer.in_double();
    let (x, s) = (leaf(&input), leaf(&shortcut));
    let y = layer.fused(&x, &s, statistics, then);
    assert_eq!(y.kind(), kind);
    let upstream = draws(y.numel() as i64).view_as(&y).to_kind(kind);
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
        let tolerance = match found.kind() {
            Kind::BFloat16 => 0.01,
            _ => 1e-4,
        };
        assert!(
            off <= tolerance,
            "{name} of {shape:?} {kind:?} {statistics:?} {then:?} is off by {off}"
        );
    }
}

/// 80 channels are one strip of four vectors and one left over; 300 rows are more than a
/// block; 7×5 and 6×6 pool with and without a window that hangs over the edge.
const SHAPES: [[i64; 4]; 4] = [[2, 16, 6, 6], [3, 80, 10, 10], [2, 32, 7, 5], [4, 16, 1, 1]];

/// Where a child says what it computes with.
const SET: &str = "instruction set: ";

#[test]
fn equals_the_separate_operations_in_float32() {
    for shape in SHAPES {
        for statistics in [Statistics::Batch, Statistics::Running] {
            for then in THENS {
                compare(shape, Kind::Float, statistics, then);
            }
        }
    }
}

#[test]
fn equals_the_separate_operations_in_bfloat16() {
    for shape in SHAPES {
        for statistics in [Statistics::Batch, Statistics::Running] {
            for then in THENS {
                compare(shape, Kind::BFloat16, statistics, then);
            }
        }
    }
}

/// The copies for lesser processors, each in a process of its own: which one runs is
/// decided once.
#[test]
fn every_instruction_set_equals_the_separate_operations() {
    for limit in ["default", "avx2", "avx512"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .env("ATEN_CPU_CAPABILITY", limit)
            .args(["norm::equals", "norm::nan", "norm::says", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{limit}: {said}");
        assert!(said.contains("4 passed"), "{limit}: {said}");
        assert!(said.contains(&format!("{SET}{}", best(limit))), "{said}");
    }
}

/// What this processor can do within `limit`.
#[cfg(target_arch = "x86_64")]
fn best(limit: &str) -> &'static str {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    match limit {
        "avx512" if avx512 => "avx512",
        "avx512" | "avx2" if avx2 => "avx2",
        _ => "baseline",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best(_: &str) -> &'static str {
    "baseline"
}

#[test]
fn says_what_it_was_compiled_for() {
    println!("{SET}{}", batch_norm_instruction_set());
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    let shape = [4, 32, 20, 20];
    let input = noise(shape, Kind::Float);
    let shortcut = input.flip([0, 2]);
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
    let input = noise([2, 16, 6, 6], Kind::Float);
    for then in THENS {
        let of = |input: &Tensor| {
            let layer = Layer::new(16);
            let (x, s) = (leaf(input), leaf(input));
            let y = layer.fused(&x, &s, Statistics::Batch, then);
            assert_eq!(y.stride()[1], 1);
            // Its gradient is one number, expanded.
            y.sum(Kind::Float).backward();
            (y.detach(), x.grad(), layer.weight.grad())
        };
        assert_eq!(of(&input.contiguous()), of(&input), "{then:?}");
    }
}

#[test]
fn the_first_of_equals_gets_the_gradient() {
    let x = leaf(&Tensor::ones([1, 16, 4, 4], FLOAT));
    let layer = Layer::new(16);
    let _ = tch::no_grad(|| layer.bias.shallow_clone().fill_(9.0));
    let y = layer.fused(&x, &x, Statistics::Running, Then::ReluMaxPool);
    y.sum(Kind::Float).backward();
    let reference = leaf(&x);
    let layer = layer.in_double();
    let double = reference.to_kind(Kind::Double);
    let y = layer.separate(&double, &double, Statistics::Running, Then::ReluMaxPool);
    y.sum(Kind::Double).backward();
    assert!(distance(&x.grad(), &reference.grad()) < 1e-6);
}

#[test]
fn a_tensor_may_be_its_own_residual() {
    let x = leaf(&noise([2, 16, 6, 6], Kind::Float));
    let layer = Layer::new(16);
    let y = layer.fused(&x, &x, Statistics::Batch, Then::AddRelu);
    y.sum(Kind::Float).backward();
    let reference = leaf(&x);
    let double = reference.to_kind(Kind::Double);
    let layer = Layer::new(16).in_double();
    let y = layer.separate(&double, &double, Statistics::Batch, Then::AddRelu);
    y.sum(Kind::Double).backward();
    assert!(distance(&x.grad(), &reference.grad()) < 1e-4);
}

/// Backward reads these: a change in between would give wrong gradients without a word.
#[test]
fn a_change_of_what_backward_needs_is_refused() {
    let changed = |change: &dyn Fn(&Tensor, &Tensor)| {
        let x = leaf(&noise([2, 16, 6, 6], Kind::Float)) * 1.0;
        let layer = Layer::new(16);
        let y = layer.fused(&x, &x, Statistics::Batch, Then::AddRelu);
        let sum = y.sum(Kind::Float);
        tch::no_grad(|| change(&x, &y));
        sum.f_backward().unwrap_err().to_string()
    };
    let fill_one = |tensor: &Tensor| drop(tensor.shallow_clone().fill_(1.0));
    for message in [changed(&|x, _| fill_one(x)), changed(&|_, y| fill_one(y))] {
        assert!(message.contains("modified by an inplace operation"));
    }
}

#[test]
fn a_second_derivative_is_refused() {
    for then in [Then::Relu, Then::ReluMaxPool] {
        let x = leaf(&noise([2, 16, 6, 6], Kind::Float));
        let y = Layer::new(16).fused(&x, &x, Statistics::Batch, then);
        let sum = y.sum(Kind::Float);
        let result = Tensor::f_run_backward(&[sum], &[x], true, true);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("differentiable once"), "{message}");
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
    let single = noise([1, 16, 1, 1], Kind::Float);
    refused(
        norm.forward(&single, None, Statistics::Batch),
        "more than one value",
    );
    assert!(norm.forward(&single, None, Statistics::Running).is_ok());
    for other in [
        noise([2, 16, 6, 5], Kind::Float),
        noise([2, 16, 6, 6], Kind::BFloat16),
        good.to_sparse_sparse_dim(4),
    ] {
        refused(
            norm.forward(&good, Some(&other), Statistics::Batch),
            "residual must be like the input",
        );
    }
}
