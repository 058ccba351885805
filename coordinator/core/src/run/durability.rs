//! What is to become durable: the best weights and checkpoints, and which worker is asked for
//! them.

use super::Run;
use super::parts::Member;
use super::phase::{Assembling, CheckpointLookup, Phase};
use crate::event::{Command, Position, SaveState, WorkerId};

impl Run {
    /// Whether the best epoch's weights are in the run directory.
    pub(super) fn best_is_stored(&self) -> bool {
        self.best_weights.are_stored(self.history.best())
    }

    /// The best epoch's weights are neither stored nor does any member have a copy.
    pub(super) fn best_is_missing(&self) -> bool {
        !self.best_is_stored() && self.best_holder().is_none()
    }

    fn best_holder(&self) -> Option<WorkerId> {
        self.members.with_best(self.history.best()?.epoch)
    }

    /// Asks a worker that still has them for the best weights, if they are not stored. No holder
    /// may be in the middle of an epoch, which the order would end.
    pub(super) fn ask_for_best(&mut self) {
        if let Some(worker) = self.best_holder() {
            self.ask_for_best_of(worker);
        }
    }

    fn ask_for_best_of(&mut self, worker: WorkerId) {
        if let Some(best) = self.history.best()
            && self.best_weights.ask(worker, best)
        {
            let order = Command::SaveState(SaveState::Best(best.epoch));
            self.send(worker, order);
        }
    }

    /// Whether the best weights are to come from this worker, which has left its group. It is
    /// asked for them, unless another member has a copy.
    pub(super) fn gives_the_best(&mut self, worker: WorkerId) -> bool {
        if let Some(best) = self.history.best() {
            let best = Some(best.epoch);
            let other = |member: &Member| !member.draining && member.best == best;
            let has = self
                .members
                .get(worker)
                .is_some_and(|member| member.best == best);
            if has && self.members.find(other).is_none() {
                self.ask_for_best_of(worker);
            }
        }
        self.best_weights.are_awaited_from(worker)
    }

    pub(super) fn on_best_stored(&mut self, epoch: u32) {
        self.best_weights.store(epoch);
        self.after_storing();
    }

    pub(super) fn on_checkpoint_stored(&mut self, position: Position) {
        if let Phase::Assembling(Assembling { checkpoint, .. }) = &mut self.phase
            && matches!(checkpoint, CheckpointLookup::Found(_))
        {
            // There is a newer one than was found.
            *checkpoint = CheckpointLookup::NotYet;
        }
        self.checkpoints.store(position, self.normal(position));
        self.after_storing();
    }

    fn after_storing(&mut self) {
        self.ask_for_checkpoint();
        self.release_draining();
        self.go_on();
    }

    pub(super) fn on_checkpoint_found(&mut self, position: Option<Position>) {
        self.checkpoints.found(position);
        match &mut self.phase {
            Phase::Assembling(Assembling { checkpoint, .. }) => {
                *checkpoint = CheckpointLookup::Found(position);
            }
            Phase::Finishing(finishing) => finishing.settled = CheckpointLookup::Found(position),
            _ => {}
        }
        self.go_on();
    }

    /// Whether a state is in the run directory, or a later one.
    pub(super) fn is_durable(&self, position: Position) -> bool {
        let newest = self.checkpoints.newest();
        newest.is_some_and(|at| self.normal(at) >= position)
    }

    /// Asks the running generation for the checkpoint that is due. Never before the best weights
    /// are stored: a run that has to make them again must find a checkpoint from before them.
    pub(super) fn ask_for_checkpoint(&mut self) {
        if self.checkpoints.is_wanted()
            && self.best_is_stored()
            && let (Phase::Training(_), Some(first)) = (&self.phase, self.members.lowest_rank())
        {
            self.checkpoints.ask(first, self.known());
            let order = Command::SaveState(SaveState::Checkpoint);
            self.send(first, order);
        }
    }
}
