//! All ways lead to the same gradients.

use std::time::Duration;

use c10d::{Backend, GroupOptions, ProcessGroup, Store};
use tch::Reduction as Mean;

use super::*;
use crate::model::Statistics;
use crate::trainer::setup::{DeviceChoice, Settings};

const HOST: &str = "127.0.0.1";
/// Uneven slices of one batch.
const SLICES: [(i64, i64); 2] = [(0, 3), (3, 2)];

fn settings() -> Settings {
    Settings {
        limit_per_class: None,
        image_size: 32,
        pretrained: None,
        device: DeviceChoice::Cpu,
        seed: 1,
        weight_decay: 0.0,
        frozen_batch_norm: true,
        collective_timeout: Duration::from_secs(60),
    }
}

/// The mean losses of two steps on the same samples, and the gradients of both.
struct Seen {
    losses: Vec<f64>,
    gradients: Vec<Tensor>,
}

fn two_steps(mut reduction: Reduction, replica: &mut Replica, (from, count): (i64, i64)) -> Seen {
    let values = Tensor::arange(5 * 3 * 32 * 32, tch::kind::FLOAT_CPU).sin();
    let images = values.view([5, 3, 32, 32]).narrow(0, from, count);
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4]).narrow(0, from, count);
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let part = reduction.gradients(replica, || {
            let logits = replica.logits(&images, Statistics::Running)?;
            let sum = logits.cross_entropy_loss::<Tensor>(&labels, None, Mean::Sum, -100, 0.0);
            Ok(sum / 5.0)
        });
        let mean = reduction.reduce(&part.unwrap()).unwrap();
        losses.push(mean.wait().unwrap().double_value(&[0]));
        let parameters = replica.optimizer.parameters().iter();
        let gradient: Vec<Tensor> = parameters
            .map(|parameter| parameter.grad().contiguous().view(-1))
            .collect();
        gradients.push(Tensor::cat(&gradient, 0));
        replica.optimizer.step(&[1e-3; 6]).unwrap();
    }
    Seen { losses, gradients }
}

type Make = fn(&ProcessGroup, &Replica) -> Result<Reduction, TrainError>;

fn on_two_ranks(make: Make) -> Vec<Seen> {
    let (_server, port) = Store::serve(HOST).unwrap();
    std::thread::scope(|scope| {
        let rank = |rank: u32| {
            scope.spawn(move || {
                let patience = Duration::from_secs(60);
                let store = Store::connect(HOST, port, patience).unwrap();
                let options = GroupOptions::new(Backend::Gloo {
                    host: Some(HOST.to_owned()),
                });
                let group = ProcessGroup::new(&store, "test", rank, 2, &options).unwrap();
                let mut replica = Replica::new(&settings(), 5, Device::Cpu);
                let reduction = make(&group, &replica).unwrap();
                two_steps(reduction, &mut replica, SLICES[rank as usize])
            })
        };
        let threads = [rank(0), rank(1)];
        threads.map(|thread| thread.join().unwrap()).into()
    })
}

#[test]
fn all_ways_make_the_same_steps() {
    let mut replica = Replica::new(&settings(), 5, Device::Cpu);
    let alone = two_steps(Reduction::Alone, &mut replica, (0, 5));
    let ways: [Make; 2] = [Reduction::overlapped, Reduction::joined];
    for make in ways {
        for rank in on_two_ranks(make) {
            for (mean, expected) in rank.losses.iter().zip(&alone.losses) {
                assert!((mean - expected).abs() < 1e-4, "{mean} {expected}");
            }
            // The first update turns the rounding of tiny gradients into whole steps of Adam, so the
            // second gradients are a little further apart.
            for (step, most) in [(0, 1e-5), (1, 2e-2)] {
                let (found, expected) = (&rank.gradients[step], &alone.gradients[step]);
                let apart = ((found - expected).norm() / expected.norm()).double_value(&[]);
                assert!(apart < most, "step {step}: {apart}");
            }
        }
    }
}
