//! The Reducer's gradients are the mean over the ranks, step after step, and it
//! reports the time of each phase.

use std::time::Duration;

use c10d::{Error, Reducer, ReducerOptions};
use tch::{Device, Kind, Tensor};

use crate::ranks::{channels_last, run, zero_grads};

const RATE: f64 = 0.05;
const STEPS: usize = 4;

/// Far above what a loaded machine adds to a step of this size.
const DELAY: Duration = Duration::from_millis(1000);

/// Two convolutions, one of them 1×1, and a bias: enough for several small buckets.
struct Net(Vec<Tensor>);

impl Net {
    fn new() -> Self {
        let weight = |sizes: [i64; 4]| {
            let count: i64 = sizes.iter().product();
            let plain = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7).sin() * 0.3;
            channels_last(&plain.reshape(sizes))
        };
        let leaves = vec![
            weight([8, 3, 3, 3]),
            weight([16, 8, 1, 1]),
            Tensor::zeros([16], (Kind::Float, Device::Cpu)),
        ];
        Self(
            leaves
                .into_iter()
                .map(|leaf| leaf.set_requires_grad(true))
                .collect(),
        )
    }

    /// The sum of the losses of these samples.
    fn loss(&self, samples: &Tensor) -> Tensor {
        let none: Option<&Tensor> = None;
        samples
            .conv2d(&self.0[0], none, [1, 1], [1, 1], [1, 1], 1)
            .relu()
            .conv2d(&self.0[1], Some(&self.0[2]), [1, 1], [0, 0], [1, 1], 1)
            .square()
            .mean_dim(&[1_i64, 2, 3][..], false, Kind::Float)
            .sum(Kind::Float)
    }

    fn descend(&self) {
        tch::no_grad(|| {
            for leaf in &self.0 {
                let _ = leaf.shallow_clone().g_sub_(&(leaf.grad() * RATE));
            }
        });
        zero_grads(&self.0);
    }

    fn flat(&self) -> Vec<f32> {
        let flat: Vec<_> = self
            .0
            .iter()
            .map(|leaf| leaf.detach().reshape([-1]))
            .collect();
        Vec::try_from(Tensor::cat(&flat, 0)).unwrap()
    }
}

fn samples() -> Tensor {
    let plain = (Tensor::arange(6 * 3 * 8 * 8, (Kind::Float, Device::Cpu)) * 0.31).cos();
    channels_last(&plain.reshape([6, 3, 8, 8]))
}

#[test]
fn uneven_ranks_end_where_one_process_with_the_whole_batch_ends() {
    let alone = Net::new();
    for _ in 0..STEPS {
        (alone.loss(&samples()) / 6.0).backward();
        alone.descend();
    }
    let expected = alone.flat();
    assert_ne!(expected, Net::new().flat());

    for gradient_as_bucket_view in [true, false] {
        // Buckets so small that there are several, to be rebuilt after the first step.
        let options = ReducerOptions {
            first_bucket_bytes: 64,
            bucket_bytes: 256,
            gradient_as_bucket_view,
        };
        let trained = run(2, |group| {
            let net = Net::new();
            let mut reducer = Reducer::new(&net.0, &group, options).unwrap();
            let (start, count) = [(0, 2), (2, 4)][group.rank() as usize];
            for _ in 0..STEPS {
                reducer.prepare_for_forward().unwrap();
                // The mean over the whole batch is the sum over the ranks of this, and
                // the Reducer divides by the world size.
                let loss = net.loss(&samples().narrow(0, start, count)) / 6.0 * 2.0;
                reducer.backward(&loss).unwrap();
                // Otherwise each step would pay for copies between the two layouts.
                for leaf in &net.0 {
                    assert_eq!(leaf.grad().stride(), leaf.stride());
                }
                net.descend();
            }
            net.flat()
        });
        assert_eq!(trained[0], trained[1], "the ranks differ");
        let worst = trained[0].iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(
            worst < 1e-6,
            "off by {worst}, views: {gradient_as_bucket_view}"
        );
    }
}

#[test]
fn the_rank_that_waits_sees_it_in_its_timings() {
    let waits = run(2, |group| {
        let net = Net::new();
        let mut reducer = Reducer::new(&net.0, &group, ReducerOptions::default()).unwrap();
        assert_eq!(reducer.last_timings().unwrap(), None);
        let mut last = None;
        // Beyond the first ten, which c10d always times.
        for step in 0..13 {
            reducer.prepare_for_forward().unwrap();
            let loss = net.loss(&samples());
            if group.rank() == 1 && step == 12 {
                std::thread::sleep(DELAY);
            }
            reducer.backward(&loss).unwrap();
            last = reducer.last_timings().unwrap();
            zero_grads(&net.0);
        }
        last.unwrap()
    });
    assert!(waits[0].allreduce_wait > DELAY / 2, "{waits:?}");
    assert!(waits[1].allreduce_wait < DELAY / 2, "{waits:?}");
    assert!(waits[1].forward > DELAY / 2, "{waits:?}");
    assert!(waits[0].backward_compute < DELAY / 2, "{waits:?}");
}

#[test]
fn ranks_with_different_parameters_are_told_so() {
    let errors = run(2, |group| {
        let size = [3, 4][group.rank() as usize];
        let leaf = Tensor::zeros([size], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        Reducer::new(&[leaf], &group, ReducerOptions::default()).err()
    });
    // All ranks are compared with rank 0.
    assert!(
        matches!(&errors[1], Some(Error::Failed { .. })),
        "{errors:?}"
    );
}
