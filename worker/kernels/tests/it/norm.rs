//! The fused batch normalisation against libtorch's separate operations.

mod reference;

use std::process::Command;

use kernels::{Error, Statistics, batch_norm_instruction_set};
use tch::{Kind, Tensor};

use reference::{FLOAT, Layer, THENS, Then, distance, double, draws, everything, leaf, noise};

/// Values in float32 are accurate also where activations are in bfloat16.
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

/// The prefix of the line in which a child prints its instruction set.
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
                // Other channels are not affected.
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
    let reference = double(&x);
    let layer = layer.in_double();
    let y = layer.separate(
        &reference,
        &reference,
        Statistics::Running,
        Then::ReluMaxPool,
    );
    y.sum(Kind::Double).backward();
    assert!(distance(&x.grad(), &reference.grad()) < 1e-6);
}

#[test]
fn a_tensor_may_be_its_own_residual() {
    let x = leaf(&noise([2, 16, 6, 6], Kind::Float));
    let layer = Layer::new(16);
    let y = layer.fused(&x, &x, Statistics::Batch, Then::AddRelu);
    y.sum(Kind::Float).backward();
    let reference = double(&x);
    let layer = Layer::new(16).in_double();
    let y = layer.separate(&reference, &reference, Statistics::Batch, Then::AddRelu);
    y.sum(Kind::Double).backward();
    assert!(distance(&x.grad(), &reference.grad()) < 1e-4);
}

/// Backward reads these: a change in between would give wrong gradients without an error.
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
    let norm = layer.norm();
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
