//! Gradients in place, autocast, Adam.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernels::{AdamOptions, Error, adam_step, autocast_bf16, clear_grads, zero_grads};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Ones of `[2, 3, 2, 2]` with the channels innermost in memory, as the model's weights have them.
fn channels_last_ones() -> Tensor {
    Tensor::empty_strided([2, 3, 2, 2], [12, 1, 6, 3], FLOAT).fill_(1.0)
}

#[test]
fn gradients_are_zeroed_where_they_are() {
    let leaf = Tensor::ones([3], FLOAT).set_requires_grad(true);
    let without = Tensor::ones([3], FLOAT).set_requires_grad(true);
    (&leaf * 2.0).sum(Kind::Float).backward();
    let gradient = leaf.grad();
    zero_grads(&[leaf, without.shallow_clone()]).unwrap();
    assert_eq!(gradient, Tensor::zeros([3], FLOAT));
    assert!(!without.grad().defined());
}

#[test]
fn cleared_gradients_are_gone_and_not_added_to() {
    let leaf = Tensor::ones([3], FLOAT).set_requires_grad(true);
    for _ in 0..2 {
        clear_grads(&[leaf.shallow_clone()]).unwrap();
        assert!(!leaf.grad().defined());
        (&leaf * 2.0).sum(Kind::Float).backward();
        assert_eq!(leaf.grad(), Tensor::ones([3], FLOAT) * 2.0);
    }
}

#[test]
fn autocast_ends_with_its_closure_also_by_panic() {
    let (a, b) = (Tensor::ones([4, 4], FLOAT), Tensor::ones([4, 4], FLOAT));
    let kind = || a.matmul(&b).kind();
    assert_eq!(autocast_bf16(Device::Cpu, kind).unwrap(), Kind::BFloat16);
    assert_eq!(kind(), Kind::Float);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        autocast_bf16(Device::Cpu, || assert_eq!(kind(), Kind::Float)).unwrap();
    }));
    assert!(panicked.is_err());
    assert_eq!(kind(), Kind::Float);
    assert!(autocast_bf16(Device::Vulkan, kind).is_err());
}

#[test]
fn autocast_forgets_the_weights_it_has_cast() {
    let weight = Tensor::ones([4, 4], FLOAT).set_requires_grad(true);
    let input = Tensor::ones([1, 4], FLOAT);
    let product = || {
        autocast_bf16(Device::Cpu, || input.matmul(&weight))
            .unwrap()
            .double_value(&[0, 0])
    };
    assert_eq!(product(), 4.0);
    let _ = tch::no_grad(|| weight.shallow_clone().fill_(2.0));
    assert_eq!(product(), 8.0);
}

/// Adam as the paper writes it (algorithm 1), with the L2 penalty in the gradient.
fn adam_by_hand(gradients: &[f64], mut parameter: f64, rate: f64, options: &AdamOptions) -> f64 {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, gradient) in (1..).zip(gradients) {
        let g = gradient + options.weight_decay * parameter;
        m = options.beta1 * m + (1.0 - options.beta1) * g;
        v = options.beta2 * v + (1.0 - options.beta2) * g * g;
        let (m_hat, v_hat) = (
            m / (1.0 - options.beta1.powi(t)),
            v / (1.0 - options.beta2.powi(t)),
        );
        parameter -= rate * m_hat / (v_hat.sqrt() + options.epsilon);
    }
    parameter
}

#[test]
fn adam_follows_the_paper() {
    let options = AdamOptions {
        weight_decay: 0.01,
        ..AdamOptions::default()
    };
    let rate = Tensor::from(0.1);
    let leaf = channels_last_ones();
    let leaf = leaf.set_requires_grad(true);
    let idle = Tensor::ones([2], FLOAT).set_requires_grad(true);
    let parameters = [leaf, idle];
    let zeros = || parameters.each_ref().map(|p| p.detach().zeros_like());
    let (m, v) = (zeros(), zeros());
    let steps = [(); 2].map(|()| Tensor::zeros([], FLOAT));
    let gradients = [0.5, -2.0, 3.0];
    for gradient in gradients {
        zero_grads(&parameters).unwrap();
        (&parameters[0] * gradient).sum(Kind::Float).backward();
        adam_step(&parameters, &m, &v, &steps, &rate, &options).unwrap();
    }
    let expected = adam_by_hand(&gradients, 1.0, 0.1, &options);
    let found = parameters[0].detach();
    for extreme in [found.min(), found.max()] {
        assert!(
            (extreme.double_value(&[]) - expected).abs() < 1e-5,
            "{extreme} {expected}"
        );
    }
    assert_eq!(steps[0].double_value(&[]), 3.0);
    // Without a gradient, nothing moves.
    assert_eq!(parameters[1], Tensor::ones([2], FLOAT));
    assert_eq!(steps[1].double_value(&[]), 0.0);
}

#[test]
fn adam_refuses_what_the_fused_kernel_would_garble() {
    let (rate, options) = (Tensor::from(0.1), AdamOptions::default());
    let leaf = channels_last_ones();
    let parameters = [leaf.set_requires_grad(true)];
    parameters[0].sum(Kind::Float).backward();
    let plain = || [Tensor::zeros([2, 3, 2, 2], FLOAT)];
    let steps = [Tensor::zeros([], FLOAT)];
    let error = adam_step(&parameters, &plain(), &plain(), &steps, &rate, &options).unwrap_err();
    assert!(error.to_string().contains("strides"), "{error}");
    let error = adam_step(&parameters, &plain(), &plain(), &[], &rate, &options).unwrap_err();
    assert!(
        matches!(
            error,
            Error::LengthMismatch {
                name: "step counts",
                ..
            }
        ),
        "{error:?}"
    );
}
