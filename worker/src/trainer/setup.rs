//! What a worker trains with, beyond its orders.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use common::manifest::Manifest;

/// The settings that all workers of a run share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Images of each class; all if `None`.
    pub limit_per_class: Option<usize>,
    /// Pixels a side.
    pub image_size: u32,
    /// A file of weights.
    pub pretrained: Option<String>,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Of fresh weights.
    pub seed: u64,
    /// L2 penalty of the optimizer.
    pub weight_decay: f64,
    /// BatchNorm computes with its running statistics, and does not move them.
    pub frozen_batch_norm: bool,
    /// After which a collective counts as broken.
    pub collective_timeout: Duration,
}

/// Where a worker computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On the first visible GPU, else on the CPU.
    Auto,
    /// On the CPU.
    Cpu,
    /// On the first visible GPU.
    Cuda,
}

/// Where the images are.
#[derive(Debug)]
pub enum Images {
    /// In this folder, which is filled with the demo set if there is none.
    Demo(PathBuf),
    /// In this folder.
    Folder(PathBuf),
    /// From the coordinator: its list, of files that are downloaded to this machine.
    Coordinator(Manifest),
}

/// The address at which peers reach this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Of this machine.
    pub ip: IpAddr,
    /// The host that its peers use, if not the address from which it connected to the coordinator.
    pub host: Option<String>,
}

/// Everything with which the training thread starts.
#[derive(Debug)]
pub struct Setup {
    /// The settings that all workers of the run share.
    pub settings: Settings,
    /// Where the images are.
    pub images: Images,
    /// Where peers reach this worker.
    pub address: Announced,
}
