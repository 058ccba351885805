//! Enters a generation: meets its group, and gets the state that it begins with.

use proto::v1;
use v1::worker_message::Message as Up;

use super::Worker;
use super::failure::{collective, internal};
use super::group::{self, RankHandle};
use super::replica::Replica;
use crate::control::Outgoing;

impl Worker<'_> {
    pub(super) fn form(&mut self, order: &v1::Assignment) -> Result<(), v1::Failure> {
        self.leave();
        self.place.enter(v1::Phase::Forming);
        let position = order.position.unwrap_or_default();
        self.place.at(order.generation, position);
        let group = group::meet(order, self.settings, &self.compute, self.address, self.link)?;
        // A state that was there before stays until all of the common one has arrived.
        let before = self.replica.take();
        let whole = before.is_some() && order.origin() != v1::Origin::Fresh;
        let mut replica = match before {
            Some(replica) if whole => replica,
            _ => Replica::new(
                self.settings,
                self.manifest.classes.len() as i64,
                self.compute.device,
            ),
        };
        replica.compute_in(order.precision());
        let result = self.fill(&mut replica, order, &group);
        if result.is_ok() || whole {
            self.replica = Some(replica);
        }
        result?;
        let (Some(replica), device) = (&self.replica, self.compute.device) else {
            return Err(internal("a group without a state"));
        };
        if replica.position != position {
            return Err(internal(format!(
                "the state is at step {} of epoch {}, not at step {} of epoch {}",
                replica.position.completed,
                replica.position.epoch,
                position.completed,
                position.epoch
            )));
        }
        self.rank_handle = Some(RankHandle::take(order, group, replica, device)?);
        self.link.message(Up::GroupReady(v1::GroupReady {
            generation: order.generation,
        }));
        Ok(())
    }

    /// Gives the replica the state that the generation begins with.
    fn fill(
        &self,
        replica: &mut Replica,
        order: &v1::Assignment,
        group: &c10d::ProcessGroup,
    ) -> Result<(), v1::Failure> {
        if order.rank == order.source {
            match order.origin() {
                v1::Origin::Checkpoint => {
                    let request = v1::DownloadRequest {
                        kind: v1::BlobKind::Checkpoint.into(),
                        position: order.position,
                        ..Default::default()
                    };
                    replica.load_checkpoint(&self.fetch(request)?)?;
                }
                v1::Origin::Fresh => {
                    if let Some(path) = self.settings.pretrained.as_deref() {
                        replica.load_pretrained(path)?;
                    }
                }
                v1::Origin::Retained | v1::Origin::Unspecified => {}
            }
            // The coordinator knows an epoch whose verdict has not reached this worker.
            if order
                .position
                .is_some_and(|at| at.epoch > replica.position.epoch)
            {
                replica.next_epoch();
            }
        }
        replica.share(group, order.source)
    }

    pub(super) fn fetch(&self, request: v1::DownloadRequest) -> Result<Vec<u8>, v1::Failure> {
        let (reply, answer) = std::sync::mpsc::channel();
        self.link.send(Outgoing::Fetch { request, reply });
        match answer.recv() {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(message)) => Err(collective(message)),
            Err(_) => Err(collective("the session broke during a download")),
        }
    }
}
