//! A rank's place in a generation: process group, model replica, reducer and optimizer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use proto::v1;
use tch::{Device, Kind, Tensor};
use v1::worker_message::Message as Up;

use super::device::Compute;
use super::failure::{collective, internal, weights_failure};
use super::optimizer::Adam;
use crate::control::{Link, Outgoing};
use crate::model::{BatchNorm, ResNet18, weights};

pub(super) struct Rank {
    pub(super) index: u32,
    pub(super) world_size: u32,
    pub(super) group: c10d::ProcessGroup,
    pub(super) model: ResNet18,
    pub(super) reducer: c10d::Reducer,
    pub(super) optimizer: Adam,
    device: Device,
    bf16: bool,
    best: Option<(u32, Vec<(String, Tensor)>)>,
}

impl Rank {
    pub(super) fn form(
        order: &v1::Assignment,
        settings: &v1::Settings,
        compute: &Compute,
        classes: i64,
        address: IpAddr,
        link: &Link,
    ) -> Result<Self, v1::Failure> {
        let timeout = Duration::from_secs(settings.collective_timeout_seconds.into());
        let store = open_store(order, timeout, address, link)?;
        link.send(Outgoing::Store(store.clone()));
        let backend = match (order.backend(), compute.device) {
            (v1::Backend::Nccl, Device::Cuda(device)) => c10d::Backend::Nccl {
                device: device as u32,
            },
            _ => c10d::Backend::Gloo {
                host: gloo_host(address),
            },
        };
        let options = c10d::GroupOptions {
            backend,
            connect_timeout: timeout,
            timeout,
        };
        let prefix = format!("generation-{}", order.generation);
        let group =
            c10d::ProcessGroup::new(&store, &prefix, order.rank, order.world_size, &options)
                .map_err(collective)?;
        link.send(Outgoing::Group(group.clone()));
        let mut model = ResNet18::new(classes, compute.device, settings.seed);
        if let Some(path) = settings.pretrained.as_deref().filter(|_| order.rank == 0) {
            let entries = weights::read(Path::new(path)).map_err(weights_failure)?;
            model
                .load(entries)
                .map_err(|error| weights_failure(format!("{path}: {error}")))?;
        }
        let state: Vec<Tensor> = model
            .state()
            .into_iter()
            .map(|(_, tensor)| tensor)
            .collect();
        group.broadcast(&state, 0).map_err(collective)?;
        let parameters: Vec<Tensor> = model
            .parameters()
            .iter()
            .map(|p| p.tensor.shallow_clone())
            .collect();
        let reducer = c10d::Reducer::new(&parameters, &group, c10d::ReducerOptions::default())
            .map_err(collective)?;
        let optimizer = Adam::new(model.parameters(), settings.weight_decay);
        Ok(Self {
            index: order.rank,
            world_size: order.world_size,
            group,
            model,
            reducer,
            optimizer,
            device: compute.device,
            bf16: order.precision() == v1::Precision::Bf16,
            best: None,
        })
    }

    /// Float logits `[B, classes]` of images `[B, 3, S, S]`, computed in what the group agreed on.
    pub(super) fn logits(&self, images: &Tensor, mode: BatchNorm) -> Result<Tensor, v1::Failure> {
        let forward = || self.model.forward(images, mode);
        let logits = if self.bf16 {
            c10d::autocast_bf16(self.device, forward).map_err(internal)?
        } else {
            forward()
        };
        Ok(logits.to_kind(Kind::Float))
    }

    /// Makes every rank's running statistics the mean over the ranks, so that all evaluate,
    /// and rank 0 saves, the same model.
    pub(super) fn average_batch_norm(&self) -> Result<(), v1::Failure> {
        if self.world_size == 1 {
            return Ok(());
        }
        let statistics = self.model.batch_norm_statistics();
        tch::no_grad(|| {
            let flat: Vec<Tensor> = statistics
                .iter()
                .map(|tensor| tensor.reshape([-1]))
                .collect();
            let mut joined = Tensor::cat(&flat, 0);
            self.group.all_reduce_sum(&mut joined).map_err(collective)?;
            let mean = joined / f64::from(self.world_size);
            let mut offset = 0;
            for mut tensor in statistics {
                let length = tensor.numel() as i64;
                tensor.copy_(&mean.narrow(0, offset, length).view_as(&tensor));
                offset += length;
            }
            Ok(())
        })
    }

    /// Copies the weights as the best so far and returns them as a `.safetensors` file.
    pub(super) fn keep_best(
        &mut self,
        verdict: &v1::Verdict,
        classes: &[String],
        image_size: u32,
    ) -> Result<Vec<u8>, v1::Failure> {
        let state: Vec<(String, Tensor)> = self
            .model
            .state()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_device(Device::Cpu).detach().copy()))
            .collect();
        let names = serde_json::to_string(classes).map_err(internal)?;
        let metadata = BTreeMap::from([
            ("classes".to_owned(), names),
            ("epoch".to_owned(), verdict.epoch.to_string()),
            (
                "validation_loss".to_owned(),
                verdict.validation_loss.to_string(),
            ),
            ("image_size".to_owned(), image_size.to_string()),
        ]);
        let bytes = weights::to_safetensors(&state, &metadata).map_err(internal)?;
        self.best = Some((verdict.epoch, state));
        Ok(bytes)
    }

    /// Goes back to the best weights; the epoch they are of, if there are any.
    pub(super) fn restore_best(&mut self) -> Result<Option<u32>, v1::Failure> {
        let Some((epoch, state)) = self.best.take() else {
            return Ok(None);
        };
        self.model.load(state).map_err(internal)?;
        Ok(Some(epoch))
    }
}

/// Rank 0 serves a store on a free port and announces it; the others connect.
fn open_store(
    order: &v1::Assignment,
    timeout: Duration,
    address: IpAddr,
    link: &Link,
) -> Result<c10d::Store, v1::Failure> {
    let Some(address) = &order.store else {
        let (store, port) = c10d::Store::serve(&address.to_string()).map_err(collective)?;
        link.message(Up::StoreListening(v1::StoreListening {
            generation: order.generation,
            port: port.into(),
        }));
        return Ok(store);
    };
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| internal(format!("`{address}` is no HOST:PORT")))?;
    c10d::Store::connect(host, port, timeout).map_err(collective)
}

/// The one address that Gloo listens on. The user's choice of interfaces goes first.
fn gloo_host(address: IpAddr) -> Option<String> {
    let chosen = std::env::var_os("GLOO_SOCKET_IFNAME").is_some();
    (!chosen).then(|| address.to_string())
}
