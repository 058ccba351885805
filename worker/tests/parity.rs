//! The network and its optimizer against PyTorch and torchvision, on weights that both compute
//! (`fixtures/record_parity.py`).
//!
//! The recording was calculated in float64, this side is float32, channels_last and fused.
//! PyTorch's own float32 was seen to differ from the recording by 1e-6 in logits, 9e-6 in
//! gradients and 1e-5 in the losses after steps; tolerances are five to ten times that. Small
//! steps on weights near 1 lose up to 4e-3 of their length to float32's spacing.
//!
//! `DEVICE=cuda` computes on a GPU, and `TOLERANCE` raises the tolerances that are tighter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use c10d::cuda::Cuda;
use serde::Deserialize;
use tch::{Device, Kind, Reduction, Tensor};
use worker::model::{Parameter, ParameterGroup, ResNet18, Statistics};
use worker::trainer::optimizer::{Adam, GroupLrs, StepError};

#[derive(Deserialize)]
struct Recording {
    state_dict: Vec<(String, Vec<i64>)>,
    labels: Vec<i64>,
    lrs: GroupLrs,
    evaluated: Vec<f64>,
    trained: Vec<f64>,
    losses: Vec<f64>,
    parameters: BTreeMap<String, Expected>,
    statistics: BTreeMap<String, Statistic>,
    batches_tracked: i64,
    decayed_adam: DecayedAdam,
}

#[derive(Deserialize)]
struct Expected {
    picked: Vec<i64>,
    gradient_norm: f64,
    gradient: Vec<f64>,
    moved_norm: f64,
    moved: Vec<f64>,
}

#[derive(Deserialize)]
struct Statistic {
    norm: f64,
    first: Vec<f64>,
}

#[derive(Deserialize)]
struct DecayedAdam {
    after: Vec<f64>,
}

/// The device that `DEVICE` names.
fn device() -> Device {
    match std::env::var("DEVICE").as_deref() {
        Ok("cuda") => {
            let found = c10d::cuda::load().unwrap();
            assert!(matches!(found, Cuda::Ready { .. }), "{found:?}");
            Device::Cuda(0)
        }
        _ => Device::Cpu,
    }
}

fn recording() -> Recording {
    serde_json::from_str(include_str!("fixtures/parity.json")).unwrap()
}

/// Values in [-1, 1): FNV-1a of the name, mixed with the index by MurmurHash3's finaliser.
fn unit(name: &str, count: i64) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..count as u32).map(move |index| {
        let mut x = index.wrapping_mul(0x9e37_79b1).wrapping_add(seed);
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        f64::from(x >> 8) / f64::from(1 << 23) - 1.0
    })
}

fn base_and_scale(name: &str, shape: &[i64]) -> (f64, f64) {
    match shape {
        [output, _, height, width] => (0.0, (6.0 / (output * height * width) as f64).sqrt()),
        _ if name.starts_with("fc.") => (0.0, 1.0 / 512f64.sqrt()),
        _ if name.ends_with("running_var") || name.ends_with("weight") => (1.0, 0.25),
        _ => (0.0, 0.25),
    }
}

fn fill(name: &str, shape: &[i64], (base, scale): (f64, f64)) -> Tensor {
    let values = unit(name, shape.iter().product()).map(|value| (value * scale + base) as f32);
    let tensor = Tensor::from_slice(&values.collect::<Vec<_>>()).reshape(shape);
    tensor.to_device(device())
}

fn network(recording: &Recording) -> ResNet18 {
    let mut model = ResNet18::new(10, device(), 0);
    let filled = recording
        .state_dict
        .iter()
        .filter(|(_, shape)| !shape.is_empty());
    let entries =
        filled.map(|(name, shape)| (name.clone(), fill(name, shape, base_and_scale(name, shape))));
    model.load(entries.collect()).unwrap();
    model
}

fn images() -> Tensor {
    let images = fill("pictures", &[4, 3, 64, 64], (0.0, 2.0));
    images
        .permute([0, 2, 3, 1])
        .contiguous()
        .permute([0, 3, 1, 2])
}

fn loss(model: &ResNet18, labels: &[i64]) -> (Tensor, Tensor) {
    let logits = model.forward(&images(), Statistics::Batch);
    model.count_batch();
    let labels = Tensor::from_slice(labels).to_device(device());
    let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
    (logits, loss)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.detach().to_device(Device::Cpu);
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn picked(tensor: &Tensor, places: &[i64]) -> Vec<f64> {
    numbers(
        &tensor
            .detach()
            .contiguous()
            .view(-1)
            .index_select(0, &Tensor::from_slice(places).to_device(tensor.device())),
    )
}

/// Within `tolerance` of the recording, relative to the largest of its numbers.
#[track_caller]
fn assert_near(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    let least = std::env::var("TOLERANCE").map_or(0.0, |least| least.parse().unwrap());
    let tolerance = f64::max(tolerance, least);
    assert_eq!(actual.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(0f64, |scale, value| scale.max(value.abs()));
    for (actual, expected) in actual.iter().zip(expected) {
        let off = (actual - expected).abs() / scale;
        assert!(
            off <= tolerance,
            "{what}: {actual} instead of {expected}, off by {off:e}"
        );
    }
}

/// What batches change without gradients.
fn buffers(model: &ResNet18) -> Vec<(String, Tensor)> {
    let mut state = model.state();
    state.retain(|(name, _)| {
        let suffixes = [".running_mean", ".running_var", ".num_batches_tracked"];
        suffixes.iter().any(|suffix| name.ends_with(suffix))
    });
    state
}

#[test]
fn the_state_dict_is_torchvisions() {
    let expected = recording().state_dict;
    let model = ResNet18::new(10, device(), 0);
    let ours: Vec<_> = model
        .state()
        .iter()
        .map(|(name, t)| (name.clone(), t.size()))
        .collect();
    assert_eq!(ours, expected);
    let trained = model.parameters().iter().map(|p| &p.name);
    let buffers = buffers(&model);
    let mut parts: Vec<_> = trained
        .chain(buffers.iter().map(|(name, _)| name))
        .collect();
    let mut whole: Vec<_> = expected.iter().map(|(name, _)| name).collect();
    parts.sort();
    whole.sort();
    assert_eq!(parts, whole);
}

#[test]
fn logits_gradients_statistics_and_three_steps_match() {
    let recording = recording();
    let model = network(&recording);
    let evaluated = tch::no_grad(|| model.forward(&images(), Statistics::Running));
    assert_near(
        "evaluation",
        &numbers(&evaluated),
        &recording.evaluated,
        1e-5,
    );

    let before: Vec<Tensor> = model
        .parameters()
        .iter()
        .map(|p| p.tensor.detach().copy())
        .collect();
    let mut adam = Adam::new(model.parameters(), 0.0);
    for (step, &expected) in recording.losses.iter().enumerate() {
        adam.zero_grad().unwrap();
        let (logits, loss) = loss(&model, &recording.labels);
        loss.backward();
        assert_near(
            &format!("loss {step}"),
            &[loss.double_value(&[])],
            &[expected],
            [1e-5, 1e-4, 1e-4][step],
        );
        if step == 0 {
            assert_near("training", &numbers(&logits), &recording.trained, 1e-5);
            gradients_and_statistics_match(&model, &recording);
        }
        adam.step(&recording.lrs).unwrap();
    }
    for (Parameter { name, tensor, .. }, before) in model.parameters().iter().zip(before) {
        let expected = &recording.parameters[name];
        let moved = tensor.detach().to_kind(Kind::Double) - before.to_kind(Kind::Double);
        assert_near(
            name,
            &[moved.norm().double_value(&[])],
            &[expected.moved_norm],
            2e-3,
        );
        assert_near(
            name,
            &picked(&moved, &expected.picked),
            &expected.moved,
            1e-2,
        );
    }
    let counters = buffers(&model)
        .into_iter()
        .filter(|(_, tensor)| tensor.kind() == Kind::Int64);
    let counts: Vec<i64> = counters
        .map(|(_, tensor)| tensor.int64_value(&[]))
        .collect();
    assert_eq!(counts, vec![recording.batches_tracked; 20]);
}

fn gradients_and_statistics_match(model: &ResNet18, recording: &Recording) {
    for Parameter { name, tensor, .. } in model.parameters() {
        let (gradient, expected) = (tensor.grad(), &recording.parameters[name]);
        let norm = gradient.to_kind(Kind::Double).norm().double_value(&[]);
        assert_near(name, &[norm], &[expected.gradient_norm], 5e-5);
        assert_near(
            name,
            &picked(&gradient, &expected.picked),
            &expected.gradient,
            1e-3,
        );
        // DDP's bucket views are laid out like the parameter; a gradient that is not costs a copy.
        assert_eq!(gradient.stride(), tensor.stride(), "{name}");
    }
    let state: BTreeMap<_, _> = model.state().into_iter().collect();
    for (name, expected) in &recording.statistics {
        let norm = state[name].to_kind(Kind::Double).norm().double_value(&[]);
        assert_near(name, &[norm], &[expected.norm], 1e-5);
        assert_near(
            name,
            &numbers(&state[name].narrow(0, 0, 2)),
            &expected.first,
            1e-5,
        );
    }
}

#[test]
fn running_statistics_hold_still_unless_batches_move_them() {
    let model = ResNet18::new(3, device(), 0);
    let copies = |model: &ResNet18| -> Vec<Tensor> {
        buffers(model)
            .iter()
            .map(|(_, tensor)| tensor.copy())
            .collect()
    };
    let before = copies(&model);
    let logits = model.forward(&images(), Statistics::Running);
    logits.sum(Kind::Float).backward();
    assert_eq!(copies(&model), before);
    assert!(
        model
            .parameters()
            .iter()
            .all(|parameter| parameter.tensor.grad().defined())
    );
}

/// Frozen BatchNorm has kernels of its own, and bf16 others again.
#[test]
fn frozen_statistics_and_bf16_give_what_the_cpu_gives() {
    let mut state = network(&recording()).state();
    state.retain(|(_, tensor)| tensor.kind() == Kind::Float);
    let [cpu, ours] = [Device::Cpu, device()].map(|device| {
        let mut model = ResNet18::new(10, device, 0);
        let entries = state
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.to_device(device)));
        model.load(entries.collect()).unwrap();
        (model, device)
    });
    let results = |(model, device): &(ResNet18, Device), bf16: bool| {
        // Two small ones: some CPUs are slow in bf16.
        let images = images().narrow(0, 0, 2).narrow(2, 0, 32).narrow(3, 0, 32);
        let images = images.to_device(*device);
        let forward = || model.forward(&images, Statistics::Running);
        let logits = match bf16 {
            true => kernels::autocast_bf16(*device, forward).unwrap(),
            false => forward(),
        };
        let loss = logits.to_kind(Kind::Float).square().sum(Kind::Float);
        loss.backward();
        let mut parameters = model.parameters().iter();
        let last = parameters.find(|p| p.name == "fc.weight").unwrap();
        let gradient = numbers(&last.tensor.grad());
        let _ = last.tensor.grad().zero_();
        (numbers(&logits), gradient)
    };
    let (logits, gradient) = results(&cpu, false);
    // bf16 has 8 bits, so that an operation is off by up to 4e-3.
    for (bf16, tolerance) in [(false, 1e-4), (true, 6e-2)] {
        let (actual, actual_gradient) = results(&ours, bf16);
        let what = format!("bf16: {bf16}");
        assert_near(&what, &actual, &logits, tolerance);
        assert_near(&what, &actual_gradient, &gradient, tolerance);
    }
}

/// One parameter of the stem, with the gradient that `decayed_adam` in the recorder gives it.
fn small_parameter() -> Parameter {
    let tensor = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.0, -0.25]).to_device(device());
    Parameter {
        name: "small".to_owned(),
        tensor: tensor.set_requires_grad(true),
        group: ParameterGroup::Stem,
    }
}

fn back_propagate(parameter: &Parameter, step: usize) {
    let direction = Tensor::from_slice(&[0.1f32, -0.2, 0.0, 1e-6, 3.0]).to_device(device());
    let direction = direction * step as f64;
    (&parameter.tensor * direction).sum(Kind::Float).backward();
}

#[test]
fn weight_decay_matches_and_a_restored_optimizer_goes_on_alike() {
    let expected = recording().decayed_adam.after;
    let lrs = [0.1, 9.0, 9.0, 9.0, 9.0, 9.0];
    let parameters = [small_parameter()];
    let mut adam = Adam::new(&parameters, 0.3);
    assert!(matches!(adam.step(&lrs), Err(StepError::NoGradient { name }) if name == "small"));
    for step in 1..=3 {
        if step == 3 {
            let restored = Adam::new(&parameters, 0.3);
            for ((name, mut to), (from_name, from)) in
                restored.state().into_iter().zip(adam.state())
            {
                assert_eq!(name, from_name);
                to.copy_(&from);
            }
            adam = restored;
        }
        adam.zero_grad().unwrap();
        back_propagate(&parameters[0], step);
        adam.step(&lrs).unwrap();
    }
    assert_near("decayed", &numbers(&parameters[0].tensor), &expected, 1e-6);
}

#[test]
fn a_rate_of_zero_moves_nothing() {
    let parameters = [small_parameter()];
    let before = parameters[0].tensor.detach().copy();
    let mut adam = Adam::new(&parameters, 0.0);
    back_propagate(&parameters[0], 1);
    adam.step(&[0.0; ParameterGroup::COUNT]).unwrap();
    assert_eq!(parameters[0].tensor.detach(), before);
}
