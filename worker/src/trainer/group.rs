//! A rank's place in a generation: its process group, and the reducer of its gradients. It ends
//! with the generation; the replica, which it trains, outlives it.
//!
//! Beside the gradients, the reducer sums up the loss: the `loss_carrier` is a parameter on which
//! nothing depends, whose gradient is by construction the rank's part of the step's mean loss. Each
//! rank knows the loss of the global batch as soon as it has the gradients, and no loss value is
//! lost with a rank.

use std::net::IpAddr;
use std::time::Duration;

use tch::{Device, Kind, Tensor};
use worker_control::{Assignment, Backend, TrainError};

use super::device::Compute;
use super::failure::{collective, internal};
use super::link::{Link, Outgoing};
use super::replica::Replica;
use super::setup::{Announced, Setup};

/// How long ranks may take to find each other. A peer that died meanwhile looks like a
/// slow one, and the coordinator treats a rank that stays in the rendezvous as stalled.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(12);

/// On a GPU one step of so many is measured.
const MEASURED_STEPS: u32 = 20;

pub(super) struct RankHandle {
    pub(super) world_size: u32,
    pub(super) group: c10d::ProcessGroup,
    reducer: c10d::Reducer,
    steps: u32,
    /// What the last step that was measured waited for other ranks, in seconds.
    waited: f64,
    /// float32 `[1]`.
    loss_carrier: Tensor,
    device: Device,
}

/// Forms the process group with the other ranks of a generation.
pub(super) fn rendezvous(
    order: &Assignment,
    setup: &Setup,
    compute: &Compute,
    link: &Link,
) -> Result<c10d::ProcessGroup, TrainError> {
    let (timeout, address) = (setup.settings.collective_timeout, &setup.address);
    let connect_timeout = timeout.min(RENDEZVOUS_TIMEOUT);
    let store = open_store(order, connect_timeout, address, link)?;
    link.send(Outgoing::Store(store.clone()));
    let backend = match (order.backend, compute.device) {
        (Backend::Nccl, Device::Cuda(device)) => c10d::Backend::Nccl {
            device: device as u32,
        },
        _ => c10d::Backend::Gloo {
            host: gloo_host(address.ip),
        },
    };
    let options = c10d::GroupOptions {
        backend,
        connect_timeout,
        timeout,
    };
    let prefix = format!("generation-{}", order.generation);
    let group = c10d::ProcessGroup::new(&store, &prefix, order.rank, order.world_size, &options)
        .map_err(|error| {
            collective(format!(
                "not all workers of the group can reach each other: {error}"
            ))
        })?;
    link.send(Outgoing::Group(group.clone()));
    Ok(group)
}

impl RankHandle {
    /// Attaches a reducer to the replica's parameters, which are equal on all ranks by now.
    pub(super) fn take(
        order: &Assignment,
        group: c10d::ProcessGroup,
        replica: &Replica,
        device: Device,
    ) -> Result<Self, TrainError> {
        let loss_carrier = Tensor::zeros([1], (Kind::Float, device)).set_requires_grad(true);
        let mut parameters: Vec<Tensor> = replica
            .model
            .parameters()
            .iter()
            .map(|p| p.tensor.shallow_clone())
            .collect();
        parameters.push(loss_carrier.shallow_clone());
        let reducer = c10d::Reducer::new(&parameters, &group, c10d::ReducerOptions::default())
            .map_err(collective)?;
        Ok(Self {
            world_size: order.world_size,
            group,
            reducer,
            steps: 0,
            waited: 0.0,
            loss_carrier,
            device,
        })
    }

    pub(super) fn prepare_for_forward(&mut self) -> Result<(), TrainError> {
        self.steps += 1;
        kernels::zero_grads(std::slice::from_ref(&self.loss_carrier)).map_err(internal)?;
        self.reducer.prepare_for_forward().map_err(collective)
    }

    /// Back-propagates this rank's part of the step's mean loss, times the world size, and
    /// returns the mean loss over the global batch, with the gradients of the same in place.
    pub(super) fn backward(&mut self, scaled: &Tensor) -> Result<f64, TrainError> {
        let value = scaled.detach();
        // Adds nothing to the loss, and its own value to the gradient of the carrier.
        let carried = (&self.loss_carrier - self.loss_carrier.detach()).sum(Kind::Float) * value;
        self.reducer
            .backward(&(scaled + carried))
            .map_err(collective)?;
        let mean = self.loss_carrier.grad().double_value(&[0]);
        settled(&self.group, self.device)?;
        Ok(mean)
    }

    /// Seconds that the backward pass waits for other ranks, of the last step that was measured.
    pub(super) fn allreduce_wait(&mut self) -> Result<f64, TrainError> {
        // On a GPU a measurement waits for six events.
        let measured = match self.device {
            Device::Cuda(_) => self.steps % MEASURED_STEPS == 1,
            _ => true,
        };
        if measured && let Some(timings) = self.reducer.last_timings().map_err(collective)? {
            self.waited = timings.allreduce_wait.as_secs_f64();
        }
        Ok(self.waited)
    }
}

/// Returns when the collectives so far have completed. On a GPU they are only queued when their
/// calls return, and an abort lets the stream continue with invalid results: nothing may be kept
/// that depends on them before this returns.
pub(super) fn settled(group: &c10d::ProcessGroup, device: Device) -> Result<(), TrainError> {
    if let (Device::Cuda(device), true) = (device, group.world_size() > 1) {
        c10d::cuda::synchronize(device as u32).map_err(collective)?;
        group.check().map_err(collective)?;
    }
    Ok(())
}

/// Rank 0 serves a store on a free port and announces it; the others connect.
fn open_store(
    order: &Assignment,
    timeout: Duration,
    address: &Announced,
    link: &Link,
) -> Result<c10d::Store, TrainError> {
    let Some(address) = &order.store else {
        let (store, port) = c10d::Store::serve(&address.ip.to_string()).map_err(collective)?;
        link.send(Outgoing::StoreListening {
            generation: order.generation,
            port,
            host: address.host.clone(),
        });
        return Ok(store);
    };
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| internal(format!("`{address}` is no HOST:PORT")))?;
    c10d::Store::connect(host, port, timeout).map_err(|error| {
        collective(format!(
            "cannot reach rank 0 at {address}, which every worker must reach (see --advertise): {error}"
        ))
    })
}

/// The one address that Gloo listens on. The user's choice of interfaces takes precedence.
fn gloo_host(address: IpAddr) -> Option<String> {
    let chosen = std::env::var_os("GLOO_SOCKET_IFNAME").is_some();
    (!chosen).then(|| address.to_string())
}
