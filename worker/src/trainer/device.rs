//! The device of this worker.

use c10d::cuda::Cuda;
use tch::Device;
use worker_control::TrainError;

use super::failure::{device, environment, first_line};
use super::setup::{DeviceChoice, Settings};

/// The device and its capabilities.
#[derive(Debug, Clone)]
pub(super) struct Compute {
    pub(super) device: Device,
    pub(super) native_bf16: bool,
    /// Empty on the CPU.
    pub(super) gpu_uuid: String,
    /// CPU threads of kernels and decoding.
    pub(super) threads: usize,
}

impl Compute {
    pub(super) fn name(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// The index of the GPU, if it is one. A GPU still works when a call returns.
    pub(super) fn gpu(&self) -> Option<u32> {
        match self.device {
            Device::Cuda(index) => Some(index as u32),
            _ => None,
        }
    }

    /// Computes, and decodes, with so many CPU threads from now on.
    pub(super) fn use_threads(&mut self, threads: u32) {
        let threads = threads.max(1) as usize;
        if std::mem::replace(&mut self.threads, threads) != threads {
            tracing::info!(threads, "the number of CPU threads has changed");
        }
        tch::set_num_threads(threads as i32);
    }

    /// Lets cuDNN try all algorithms for shapes that it has not met, and keep the quickest. That
    /// pays only for shapes that come again and again.
    pub(super) fn tune(&self, pays: bool) {
        if self.gpu().is_some() {
            tch::Cuda::cudnn_set_benchmark(pays);
        }
    }
}

/// Chooses as `settings.device` says; `auto` is the first GPU that is visible, else the CPU.
pub(super) fn choose(settings: &Settings) -> Result<Compute, TrainError> {
    let mut cpu = Compute {
        device: Device::Cpu,
        native_bf16: cpu_bf16(),
        gpu_uuid: String::new(),
        threads: 1,
    };
    // Until the coordinator has seen who shares this machine.
    cpu.use_threads(1);
    if settings.device == DeviceChoice::Cpu {
        return Ok(cpu);
    }
    match c10d::cuda::load() {
        Ok(Cuda::Ready { .. }) => {
            let info = c10d::cuda::device_info(0).map_err(device)?;
            tracing::info!(name = info.name, uuid = info.uuid, "computing on a GPU");
            // bf16 arithmetic came with Ampere, compute capability 8.0.
            let native_bf16 = info.compute_capability.0 >= 8;
            Ok(Compute {
                device: Device::Cuda(0),
                native_bf16,
                gpu_uuid: info.uuid,
                ..cpu
            })
        }
        Ok(Cuda::Unusable { reason }) => Err(device(format!(
            "the GPU of this machine cannot be used: {}; --device cpu trains without it",
            first_line(reason)
        ))),
        // A worker that was given a GPU must not take the CPU when that is gone.
        Ok(Cuda::Absent { reason })
            if settings.device == DeviceChoice::Auto && !c10d::process::has_gpus() =>
        {
            tracing::info!(reason, "computing on the CPU");
            Ok(cpu)
        }
        Ok(Cuda::Absent { reason }) => Err(device(format!(
            "a GPU was asked for, but there is none here ({reason}); --device cpu trains without it"
        ))),
        Err(error) => Err(environment(error)),
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_bf16() -> bool {
    false
}
