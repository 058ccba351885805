//! Between two generations: which members have left the old one, which join, and from which state
//! the next continues.

use std::cmp::Reverse;

use super::parts::{Member, Stage};
use super::phase::{Assembling, CheckpointLookup, Pause, Phase};
use super::{Now, Run};
use crate::event::{
    Action, Command, Fact, LossCause, Origin, OutageCause, Position, RunError, WaitReason, WorkerId,
};

/// How long a survivor may take to leave an aborted generation.
const ABORT_TIMEOUT: Now = Now::from_secs(15);

/// Whether the next generation can be formed.
enum Assembled {
    /// By these members.
    Ready(Vec<WorkerId>),
    NotYet(WaitReason),
    /// There will never be enough workers.
    TooFew,
}

/// A state that the run can go on from.
struct Start {
    position: Position,
    origin: Origin,
    /// The worker that gives it to all.
    source: Option<WorkerId>,
}

impl Run {
    /// Ends the generation: all leave it, and retain what they have. `absent` workers were lost
    /// that others, and not the launcher, start again.
    pub(super) fn abort_generation(&mut self, absent: usize) {
        let generation = self.generation;
        let abort = |id| Action::Send(id, Command::AbortGeneration { generation });
        self.out
            .extend(self.members.assigned().map(|(id, _, _)| abort(id)));
        self.assemble(absent);
    }

    pub(super) fn assemble(&mut self, absent: usize) {
        if self.pause == Some(Pause::Regroup) {
            self.pause = None;
        }
        self.phase = Phase::Assembling(Assembling {
            since: self.now,
            absent,
            checkpoint: CheckpointLookup::NotYet,
            waiting: None,
        });
        self.assemble_if_possible();
    }

    /// Notes when training stopped, and how far it was by then.
    pub(super) fn begin_outage(&mut self, cause: OutageCause) {
        let working = matches!(self.phase, Phase::Training(_) | Phase::Forming(_));
        let reported = Position {
            completed: self.members.completed_by_any().max(self.position.completed),
            ..self.position
        };
        let reported = (working && self.initialized).then_some(reported);
        self.outage.begin(self.now, cause, reported);
    }

    pub(super) fn on_generation_aborted(
        &mut self,
        worker: WorkerId,
        generation: u64,
        retained: Option<Position>,
    ) {
        if generation != self.generation || !matches!(self.phase, Phase::Assembling(_)) {
            return;
        }
        let Some(member) = self.members.get_mut(worker) else {
            return;
        };
        if member.assignment.take().is_some() {
            member.retained = retained;
            self.release_draining();
            self.go_on();
        }
    }

    /// A worker has become able to train.
    pub(super) fn on_ready(&mut self) {
        match self.phase {
            Phase::Training(_) if self.members.world_size() < self.recipe.max_workers => {
                self.pause(Pause::Regroup);
            }
            _ => self.go_on(),
        }
    }

    pub(super) fn assemble_if_possible(&mut self) {
        let Phase::Assembling(assembling) = &self.phase else {
            return;
        };
        match (self.assembled(assembling), self.pause) {
            (Assembled::Ready(_), Some(Pause::Stop(reason))) => self.finish(reason),
            (Assembled::Ready(ready), _) => self.form_from_the_best_state(&ready),
            (Assembled::NotYet(reason), _) => self.report_waiting(reason),
            (Assembled::TooFew, _) => self.too_few(),
        }
    }

    fn assembled(&self, assembling: &Assembling) -> Assembled {
        if let Some((id, member, _)) = self.members.assigned().next() {
            let member = member.info(id);
            return Assembled::NotYet(WaitReason::Abort { member });
        }
        if let Some(Pause::Stop(_)) = self.pause {
            return Assembled::Ready(Vec::new());
        }
        if let Some((id, member)) = self.members.iter().find(|(_, member)| member.draining) {
            let member = member.info(id);
            return Assembled::NotYet(WaitReason::Drain { member });
        }
        let ready = self.members.iter();
        let ready = ready.filter(|(_, member)| member.stage == Stage::Ready);
        let ready: Vec<WorkerId> = ready.map(|(id, _)| id).collect();
        let enough = ready.len() >= self.recipe.min_workers;
        let waited = self.now.saturating_sub(assembling.since) >= self.recipe.rejoin_timeout;
        // A client that a user started and that never reports its data is not a worker.
        let patience = self.recipe.stall_timeout;
        let behind = |member: &&Member| {
            let reports = member.stage > Stage::Joined || member.local_rank.is_some();
            let new = self.now.saturating_sub(member.joined) < patience;
            member.stage < Stage::Ready && (reports || new)
        };
        let unready = self.vacant_local_ranks() + self.members.values().filter(behind).count();
        let missing = assembling.absent + unready;
        if enough && (waited || missing == 0) {
            return Assembled::Ready(ready);
        }
        let others_start = !self.local_workers.are_launched();
        let may_come = unready > 0 || !waited && (others_start || missing > 0);
        if !enough && !may_come {
            return Assembled::TooFew;
        }
        let missing = missing.max(self.recipe.min_workers.saturating_sub(ready.len()));
        Assembled::NotYet(WaitReason::Workers { missing })
    }

    fn report_waiting(&mut self, reason: WaitReason) {
        if let Phase::Assembling(assembling) = &mut self.phase
            && assembling.waiting.as_ref() != Some(&reason)
        {
            assembling.waiting = Some(reason.clone());
            self.notify(Fact::Waiting(reason));
        }
    }

    pub(super) fn too_few(&mut self) {
        let available = self.members.values().filter(|member| member.is_available());
        let error = RunError::TooFewWorkers {
            ready: available.count(),
            required: self.recipe.min_workers,
            last: self.failures.last().cloned().map(Box::new),
        };
        self.fail(error);
    }

    /// Continues from the furthest state that a member retains or the run directory has, else from
    /// the beginning.
    fn form_from_the_best_state(&mut self, ready: &[WorkerId]) {
        if let Some(reason) = self.history.end().filter(|_| !self.best_is_missing()) {
            return self.finish(reason);
        }
        let retained = self.furthest_retained(ready);
        let newest = self.checkpoints.newest().max(Some(self.known()));
        // A member that left before the first group had formed may have saved the state that it
        // brought.
        let nothing_yet = !self.initialized && self.checkpoints.newest().is_none();
        let Phase::Assembling(assembling) = &mut self.phase else {
            return;
        };
        let stored = match assembling.checkpoint {
            _ if nothing_yet => None,
            CheckpointLookup::Asked => return,
            CheckpointLookup::Found(stored) => stored.filter(|at| self.is_usable(*at)),
            CheckpointLookup::NotYet => match retained {
                Some(start) if Some(start.position) >= newest => {
                    return self.form(ready, start.position, start.origin, start.source);
                }
                _ => {
                    assembling.checkpoint = CheckpointLookup::Asked;
                    // Nothing may get in between the search and what follows from it.
                    self.checkpoints.forget();
                    return self.out.push(Action::FindCheckpoint);
                }
            },
        };
        let first = ready.first().copied();
        let (position, origin, source) = match (retained, stored) {
            (Some(start), stored) if Some(start.position) >= stored => {
                (start.position, start.origin, start.source)
            }
            (_, Some(stored)) => (stored, Origin::Checkpoint, first),
            (_, None) => (Position::start_of(1), Origin::Fresh, first),
        };
        self.form(ready, position, origin, source);
    }

    /// The furthest usable state that a member retains; the first of those that are as far.
    fn furthest_retained(&self, ready: &[WorkerId]) -> Option<Start> {
        let retained = |id: &WorkerId| {
            let retained = self.members.get(*id)?.retained?;
            Some((self.restart_of(retained)?, *id))
        };
        let furthest = ready.iter().filter_map(retained);
        let furthest = furthest.max_by_key(|(position, id)| (*position, Reverse(*id)));
        furthest.map(|(position, id)| Start {
            position,
            origin: Origin::Retained,
            source: Some(id),
        })
    }

    /// A survivor that does not leave its group is no survivor.
    pub(super) fn evict_unresponsive(&mut self) {
        let Phase::Assembling(Assembling { since, .. }) = self.phase else {
            return;
        };
        let patience = ABORT_TIMEOUT.max(self.pace.patience());
        if self.now.saturating_sub(since) < patience {
            return;
        }
        let stuck: Vec<WorkerId> = self.members.assigned().map(|(id, _, _)| id).collect();
        for worker in stuck {
            self.evict(worker, LossCause::UnresponsiveToAbort);
        }
    }
}
