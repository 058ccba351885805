//! All-reduce and broadcast give every rank the right answer.

use c10d::Error;
use tch::{Device, Kind, Tensor};

use crate::ranks::{channels_last, run};

#[test]
fn all_reduce_sums_over_every_rank() {
    for world_size in [1, 2, 3] {
        let sums = run(world_size, |group| {
            let mut floats = Tensor::from_slice(&[1.5_f32, f32::from(group.rank() as u8)]);
            let mut doubles = Tensor::from_slice(&[1e-12_f64, 1.0]);
            let mut counts = Tensor::from_slice(&[i64::from(group.rank()) + 1]);
            group.all_reduce_sum(&mut floats).unwrap();
            group.all_reduce_sum(&mut doubles).unwrap();
            group.all_reduce_sum(&mut counts).unwrap();
            (
                Vec::<f32>::try_from(floats).unwrap(),
                Vec::<f64>::try_from(doubles).unwrap(),
                Vec::<i64>::try_from(counts).unwrap(),
            )
        });
        let n = f64::from(world_size);
        for (floats, doubles, counts) in sums {
            assert_eq!(floats, [1.5 * n as f32, (n * (n - 1.0) / 2.0) as f32]);
            assert!((doubles[0] - n * 1e-12).abs() < 1e-24 && doubles[1] == n);
            assert_eq!(counts, [i64::from(world_size * (world_size + 1) / 2)]);
        }
    }
}

#[test]
fn broadcast_overwrites_every_rank_with_the_root() {
    let seen = run(3, |group| {
        let rank = i64::from(group.rank());
        let weight = Tensor::full([2, 3, 4, 4], rank, (Kind::Float, Device::Cpu));
        let weight = channels_last(&weight).set_requires_grad(true);
        let count = Tensor::from(rank * 10);
        group
            .broadcast(&[weight.shallow_clone(), count.shallow_clone()], 2)
            .unwrap();
        (
            weight.min().double_value(&[]),
            weight.max().double_value(&[]),
            count.int64_value(&[]),
        )
    });
    assert_eq!(seen, [(2.0, 2.0, 20); 3]);
}

#[test]
fn a_tensor_with_gaps_is_refused_before_anything_is_sent() {
    let results = run(2, |group| {
        let whole = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        let refused = group
            .all_reduce_sum(&mut whole.narrow(1, 0, 2))
            .unwrap_err();
        // The group is still usable.
        let mut one = Tensor::from(1.0_f32);
        group.all_reduce_sum(&mut one).unwrap();
        (refused, one.double_value(&[]))
    });
    for (refused, sum) in results {
        assert!(matches!(&refused, Error::Failed { message, .. } if message.contains("dense")));
        assert_eq!(sum, 2.0);
    }
}

#[test]
fn a_root_beyond_the_world_is_refused() {
    run(2, |group| {
        assert!(matches!(
            group.broadcast(&[Tensor::from(1.0)], 2),
            Err(Error::NoSuchRank {
                rank: 2,
                world_size: 2
            })
        ));
    });
}
