//! CUDA and NCCL: tests for any machine, and, on request, for one with a GPU.

use c10d::cuda::{self, Cuda};
use c10d::{Backend, Error, GroupOptions, ProcessGroup, Reducer, ReducerOptions, Store};
use tch::{Device, Kind, Tensor};

use crate::ranks::{HOST, PATIENCE, options, zero_grads};

#[test]
fn every_machine_says_whether_it_has_gpus_or_why_not() {
    match cuda::load().unwrap() {
        Cuda::Ready { devices } => {
            let info = cuda::device_info(devices - 1).unwrap();
            assert!(
                info.uuid.starts_with("GPU-") && info.total_memory > 0,
                "{info:?}"
            );
            assert!(cuda::device_info(devices).is_err());
        }
        Cuda::Unusable { reason } => panic!("{reason}"),
        Cuda::Absent { reason } => {
            assert!(!reason.is_empty());
            assert!(matches!(cuda::device_info(0), Err(Error::Failed { .. })));
            let (store, _) = Store::serve(HOST).unwrap();
            let options = GroupOptions {
                backend: Backend::Nccl { device: 0 },
                ..options()
            };
            let error = ProcessGroup::new(&store, "nccl", 0, 1, &options).unwrap_err();
            assert!(matches!(error, Error::Failed { .. }), "{error:?}");
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn one_rank_trains_and_aborts_on_a_gpu() {
    assert!(matches!(cuda::load().unwrap(), Cuda::Ready { .. }));
    let (store, _) = Store::serve(HOST).unwrap();
    let options = GroupOptions {
        timeout: PATIENCE,
        ..GroupOptions::new(Backend::Nccl { device: 0 })
    };
    let group = ProcessGroup::new(&store, "nccl", 0, 1, &options).unwrap();
    let cuda = (Kind::Float, Device::Cuda(0));
    let mut sum = Tensor::ones([4], cuda);
    group.all_reduce_sum(&mut sum).unwrap();
    group.broadcast(&[sum.shallow_clone()], 0).unwrap();

    let leaf = Tensor::ones([4], cuda).set_requires_grad(true);
    let mut reducer =
        Reducer::new(&[leaf.shallow_clone()], &group, ReducerOptions::default()).unwrap();
    for _ in 0..2 {
        zero_grads(&[leaf.shallow_clone()]);
        reducer.prepare_for_forward().unwrap();
        reducer.backward(&(&leaf * &sum).sum(Kind::Float)).unwrap();
    }
    assert_eq!(leaf.grad().sum(Kind::Float).double_value(&[]), 4.0);
    assert!(reducer.last_timings().unwrap().is_some());

    group.abort().unwrap();
    cuda::synchronize(0).unwrap();
    let later = group.all_reduce_sum(&mut sum).unwrap_err();
    assert!(matches!(later, Error::Aborted { .. }), "{later:?}");
    let checked = group.check().unwrap_err();
    assert!(matches!(checked, Error::Aborted { .. }), "{checked:?}");
}
