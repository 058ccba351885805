//! Enters a generation: joins its process group, and gets the state with which it begins.

use worker_control::{Activity, Assignment, TrainError};

use super::Worker;
use super::failure::internal;
use super::group::{self, RankHandle};
use super::replica::Replica;

impl Worker<'_> {
    pub(super) fn rendezvous(&mut self, assignment: &Assignment) -> Result<(), TrainError> {
        self.activity.enter(Activity::Forming);
        self.activity.at(assignment.generation, assignment.position);
        self.compute.use_threads(assignment.threads);
        self.group = group::rendezvous(assignment, self.setup, &self.compute, self.link)?;
        Ok(())
    }

    pub(super) fn create(&self, pretrained: bool) -> Result<Replica, TrainError> {
        let classes = self.manifest.classes.len() as i64;
        let mut replica = Replica::new(self.settings, classes, self.compute.device);
        if let (true, Some(path)) = (pretrained, &self.settings.pretrained) {
            replica.load_pretrained(path)?;
        }
        Ok(replica)
    }

    pub(super) fn broadcast(&mut self, assignment: &Assignment) -> Result<(), TrainError> {
        let group = self.group.take();
        let replica = self.state()?;
        replica.compute_in(assignment.precision);
        match &group {
            Some(group) => replica.broadcast_state(group, assignment.source)?,
            None if assignment.world_size == 1 => {}
            None => return Err(internal("there is no process group")),
        }
        self.rank = Some(RankHandle::new(assignment, group));
        Ok(())
    }
}
