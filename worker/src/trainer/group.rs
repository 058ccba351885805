//! A rank's place in a generation: its process group, and the reducer of its gradients. It ends
//! with the generation; the replica, which it trains, outlives it. The only rank of a generation
//! has neither.
//!
//! Beside the gradients, the reducer sums up the loss: the `loss_carrier` is a parameter on which
//! nothing depends, whose gradient is by construction the rank's part of the step's mean loss. Each
//! rank knows the loss of the global batch as soon as it has the gradients, and no loss value is
//! lost with a rank.

use std::net::IpAddr;
use std::time::Duration;

use c10d::HostCopy;
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
    pub(super) rank: u32,
    pub(super) world_size: u32,
    /// `None` for the only rank.
    peers: Option<Peers>,
}

/// What connects a rank with the others.
struct Peers {
    group: c10d::ProcessGroup,
    reducer: c10d::Reducer,
    steps: u32,
    /// What the last step that was measured waited for other ranks, in seconds.
    waited: f64,
    /// float32 `[1]`.
    loss_carrier: Tensor,
    device: Device,
}

/// Forms the process group with the other ranks of a generation, if there are any.
pub(super) fn rendezvous(
    order: &Assignment,
    setup: &Setup,
    compute: &Compute,
    link: &Link,
) -> Result<Option<c10d::ProcessGroup>, TrainError> {
    let (timeout, address) = (setup.settings.collective_timeout, &setup.address);
    let connect_timeout = timeout.min(RENDEZVOUS_TIMEOUT);
    let store = open_store(order, connect_timeout, address, link)?;
    if order.world_size == 1 {
        return Ok(None);
    }
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
    Ok(Some(group))
}

impl RankHandle {
    /// Attaches a reducer to the replica's parameters, which are equal on all ranks by now.
    pub(super) fn take(
        order: &Assignment,
        group: Option<c10d::ProcessGroup>,
        replica: &Replica,
        device: Device,
    ) -> Result<Self, TrainError> {
        let peers = group.map(|group| Peers::connect(group, replica, device));
        Ok(Self {
            rank: order.rank,
            world_size: order.world_size,
            peers: peers.transpose()?,
        })
    }

    /// The other ranks, and this one.
    pub(super) fn group(&self) -> Option<&c10d::ProcessGroup> {
        self.peers.as_ref().map(|peers| &peers.group)
    }

    /// Whether there are no other ranks, so that no step can fail because of one.
    pub(super) fn is_alone(&self) -> bool {
        self.peers.is_none()
    }

    /// Removes the gradients of the last step, and remembers what a failed one would change.
    pub(super) fn begin_step(
        &mut self,
        replica: &mut Replica,
        moves_statistics: bool,
    ) -> Result<(), TrainError> {
        match &mut self.peers {
            None => replica.optimizer.clear_grad().map_err(internal),
            Some(peers) => {
                replica.begin_step(moves_statistics);
                // They stay where they are, in the reducer's buckets.
                replica.optimizer.zero_grad().map_err(internal)?;
                peers.begin_step()
            }
        }
    }

    /// Back-propagates this rank's part of the step's mean loss, times the world size. Returns the
    /// mean loss over the global batch, float32 `[1]`, with the gradients of the same in place. A
    /// GPU may still have to compute both, but with peers: no update may follow a collective that
    /// is going to break.
    pub(super) fn backward(&mut self, scaled: &Tensor) -> Result<Tensor, TrainError> {
        match &mut self.peers {
            Some(peers) => peers.backward(scaled),
            None => {
                scaled.f_backward().map_err(internal)?;
                scaled.detach().f_view([1]).map_err(internal)
            }
        }
    }

    /// Seconds that the backward pass waits for other ranks, of the last step that was measured.
    pub(super) fn allreduce_wait(&mut self) -> Result<f64, TrainError> {
        let waited = self.peers.as_mut().map(Peers::allreduce_wait);
        waited.unwrap_or(Ok(0.0))
    }
}

impl Peers {
    fn connect(
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
            group,
            reducer,
            steps: 0,
            waited: 0.0,
            loss_carrier,
            device,
        })
    }

    fn begin_step(&mut self) -> Result<(), TrainError> {
        self.steps += 1;
        kernels::zero_grads(std::slice::from_ref(&self.loss_carrier)).map_err(internal)?;
        self.reducer.prepare_for_forward().map_err(collective)
    }

    fn backward(&mut self, scaled: &Tensor) -> Result<Tensor, TrainError> {
        let value = scaled.detach();
        // Adds nothing to the loss, and its own value to the gradient of the carrier.
        let carried = (&self.loss_carrier - self.loss_carrier.detach()).sum(Kind::Float) * value;
        self.reducer
            .backward(&(scaled + carried))
            .map_err(collective)?;
        // On a GPU the collectives are only queued so far. The copy comes after them, and an
        // abort lets it come too, with invalid results.
        let copy = HostCopy::begin(&self.loss_carrier.grad()).map_err(collective)?;
        let mean = copy.wait().map_err(collective)?;
        self.group.check().map_err(collective)?;
        Ok(mean.shallow_clone())
    }

    fn allreduce_wait(&mut self) -> Result<f64, TrainError> {
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
