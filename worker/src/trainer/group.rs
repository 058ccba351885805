//! A rank's place in a generation: its process group, and how it reduces gradients over that. It
//! ends with the generation; the replica, which it trains, outlives it. The only rank of a
//! generation has no group.

use std::net::IpAddr;
use std::time::Duration;

use tch::Device;
use worker_control::{Assignment, Backend, TrainError};

use super::device::Compute;
use super::failure::{collective, internal};
use super::link::{Link, Outgoing};
use super::reduction::Reduction;
use super::replica::Replica;
use super::setup::{Announced, Setup};

/// How long ranks may take to find each other. A peer that died meanwhile looks like a
/// slow one, and the coordinator treats a rank that stays in the rendezvous as stalled.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(12);

pub(super) struct RankHandle {
    pub(super) rank: u32,
    world_size: u32,
    /// `None` for the only rank.
    group: Option<c10d::ProcessGroup>,
    /// From the first step on.
    reduction: Option<Reduction>,
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
    /// The place that `order` gives.
    pub(super) fn new(order: &Assignment, group: Option<c10d::ProcessGroup>) -> Self {
        Self {
            rank: order.rank,
            world_size: order.world_size,
            group,
            reduction: None,
        }
    }

    /// The other ranks, and this one.
    pub(super) fn group(&self) -> Option<&c10d::ProcessGroup> {
        self.group.as_ref()
    }

    /// Whether there are no other ranks, so that no step can fail because of one.
    pub(super) fn is_alone(&self) -> bool {
        self.group.is_none()
    }

    /// How the gradients of a step over so many samples of all ranks, and of those after it, are
    /// reduced. All ranks ask with the same number.
    pub(super) fn reduction(
        &mut self,
        replica: &Replica,
        global: u32,
    ) -> Result<&mut Reduction, TrainError> {
        let reduction = match self.reduction.take() {
            Some(reduction) => reduction,
            None => {
                let samples = global.div_ceil(self.world_size.max(1));
                Reduction::choose(self.group.as_ref(), replica, samples)?
            }
        };
        Ok(self.reduction.insert(reduction))
    }
}

/// Returns when the collectives so far have completed. On a GPU they are only queued when their
/// calls return, and an abort lets the stream continue with invalid results: nothing may be kept
/// that depends on them before this returns.
pub(super) fn settled(group: &c10d::ProcessGroup, device: Device) -> Result<(), TrainError> {
    if let Device::Cuda(device) = device {
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
