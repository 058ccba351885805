//! Between two generations: who has left the old one, who comes, and from which state the next
//! goes on.

use super::{Assembling, CheckpointLookup, Now, Outage, Pause, Phase, Run, Stage};
use crate::event::{
    Action, Command, Fact, LossCause, Origin, OutageCause, Position, RunError, WaitReason, WorkerId,
};

/// How long a survivor may take to leave a broken generation.
const ABORT_TIMEOUT: Now = Now::from_secs(15);

/// Whether the next generation can be formed.
enum Assembled {
    /// By these members.
    Ready(Vec<WorkerId>),
    NotYet(WaitReason),
    /// There will never be enough workers.
    TooFew,
}

impl Run {
    /// Ends the generation: all leave it, keep what they have, and say so. So many workers were
    /// lost that people, and no launcher, start again.
    pub(super) fn abort_generation(&mut self, now: Now, absent: usize, out: &mut Vec<Action>) {
        let generation = self.generation;
        let abort_generation = |id| Action::Send(id, Command::AbortGeneration { generation });
        out.extend(self.assigned().map(|(id, _, _)| abort_generation(id)));
        self.assemble(now, absent, out);
    }

    pub(super) fn assemble(&mut self, now: Now, absent: usize, out: &mut Vec<Action>) {
        if self.pause == Some(Pause::Regroup) {
            self.pause = None;
        }
        self.phase = Phase::Assembling(Assembling {
            since: now,
            absent,
            checkpoint: CheckpointLookup::NotYet,
            waiting: None,
        });
        self.assemble_if_possible(now, out);
    }

    /// Remembers when training stood still, and how far it had come by then.
    pub(super) fn note_outage(&mut self, now: Now, cause: OutageCause) {
        if let Some(outage) = &mut self.outage {
            outage.cause = outage.cause.max(cause);
            return;
        }
        let working = matches!(self.phase, Phase::Training(_) | Phase::Forming(_));
        if working && self.initialized {
            let reported = self
                .assigned()
                .map(|(_, _, assignment)| assignment.completed)
                .max();
            self.outage = Some(Outage {
                since: now,
                cause,
                reported: Position {
                    completed: reported.unwrap_or(0).max(self.position.completed),
                    ..self.position
                },
            });
        }
    }

    pub(super) fn on_halted(
        &mut self,
        now: Now,
        worker: WorkerId,
        generation: u64,
        retained: Option<Position>,
        out: &mut Vec<Action>,
    ) {
        if generation != self.generation || !matches!(self.phase, Phase::Assembling(_)) {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        if member.assignment.take().is_some() {
            member.retained = retained;
            self.release_draining(now, out);
            self.go_on(now, out);
        }
    }

    /// A worker has become able to train.
    pub(super) fn on_ready(&mut self, now: Now, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Training(_) if self.world_size() < self.recipe.max_workers => {
                self.pause(now, Pause::Regroup, out);
            }
            _ => self.go_on(now, out),
        }
    }

    /// Something has changed, or time has passed: whatever waited for that may be done now.
    pub(super) fn go_on(&mut self, now: Now, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Gathering => self.gather_if_possible(now, out),
            Phase::Preparing => self.split_if_possible(now, out),
            Phase::Assembling(_) => self.assemble_if_possible(now, out),
            Phase::Finishing(_) => self.go_on_finishing(now, out),
            Phase::Forming(_) | Phase::Training(_) | Phase::Closed => {}
        }
    }

    fn assemble_if_possible(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Assembling(assembling) = &self.phase else {
            return;
        };
        match (self.assembled(now, assembling), self.pause) {
            (Assembled::Ready(_), Some(Pause::Stop(reason))) => self.finish(now, reason, out),
            (Assembled::Ready(ready), _) => self.form_from_the_best_state(now, &ready, out),
            (Assembled::NotYet(reason), _) => self.report_waiting(reason, out),
            (Assembled::TooFew, _) => self.too_few(out),
        }
    }

    fn assembled(&self, now: Now, assembling: &Assembling) -> Assembled {
        if let Some((id, member, _)) = self.assigned().next() {
            let member = member.info(id);
            return Assembled::NotYet(WaitReason::Abort { member });
        }
        if let Some(Pause::Stop(_)) = self.pause {
            return Assembled::Ready(Vec::new());
        }
        if let Some((id, member)) = self.members.iter().find(|(_, member)| member.draining) {
            let member = member.info(*id);
            return Assembled::NotYet(WaitReason::Drain { member });
        }
        let ready: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Ready)
            .map(|(id, _)| *id)
            .collect();
        let enough = ready.len() >= self.recipe.min_workers;
        let waited = now.saturating_sub(assembling.since) >= self.recipe.rejoin_timeout;
        // Whoever comes from somewhere and does not even say what it sees is no worker.
        let patience = self.recipe.stall_timeout;
        let behind = |member: &&super::Member| {
            let speaks = member.stage > Stage::Joined || member.local_rank.is_some();
            let new = now.saturating_sub(member.joined) < patience;
            member.stage < Stage::Ready && (speaks || new)
        };
        let unready = self.open_local_ranks() + self.members.values().filter(behind).count();
        let missing = assembling.absent + unready;
        if enough && (waited || missing == 0) {
            return Assembled::Ready(ready);
        }
        let may_come = unready > 0 || !waited && (self.recipe.local_ranks == 0 || missing > 0);
        if !enough && !may_come {
            return Assembled::TooFew;
        }
        let missing = missing.max(self.recipe.min_workers.saturating_sub(ready.len()));
        Assembled::NotYet(WaitReason::Workers { missing })
    }

    fn report_waiting(&mut self, reason: WaitReason, out: &mut Vec<Action>) {
        if let Phase::Assembling(assembling) = &mut self.phase
            && assembling.waiting.as_ref() != Some(&reason)
        {
            assembling.waiting = Some(reason.clone());
            out.push(Action::Notify(Fact::Waiting(reason)));
        }
    }

    pub(super) fn too_few(&mut self, out: &mut Vec<Action>) {
        let ready = |member: &&super::Member| member.stage == Stage::Ready && !member.draining;
        let error = RunError::TooFewWorkers {
            ready: self.members.values().filter(ready).count(),
            required: self.recipe.min_workers,
            last: self.last_loss.clone().map(Box::new),
        };
        self.fail(error, out);
    }

    /// Goes on from the furthest state that somebody holds or the run directory has, else from
    /// the beginning.
    fn form_from_the_best_state(&mut self, now: Now, ready: &[WorkerId], out: &mut Vec<Action>) {
        if let Some(reason) = self.over().filter(|_| !self.best_is_missing()) {
            return self.finish(now, reason, out);
        }
        let retained = ready
            .iter()
            .filter_map(|id| Some((self.restart_of(self.members.get(id)?.retained?)?, *id)))
            // The first of those that hold as much.
            .max_by_key(|(position, id)| (*position, std::cmp::Reverse(*id)));
        let first = ready.first().copied();
        let fresh = (Position::start_of(1), Origin::Fresh, first);
        let newest = self.durable.max(Some(self.known()));
        let Phase::Assembling(assembling) = &mut self.phase else {
            return;
        };
        let stored = match assembling.checkpoint {
            _ if !self.initialized => None,
            CheckpointLookup::Asked => return,
            CheckpointLookup::Found(stored) => stored.filter(|at| self.is_usable(*at)),
            CheckpointLookup::NotYet => {
                let Some((position, source)) = retained.filter(|(at, _)| Some(*at) >= newest)
                else {
                    assembling.checkpoint = CheckpointLookup::Asked;
                    // Nothing may get in between the look and what follows from it.
                    self.awaited_checkpoint = None;
                    return out.push(Action::FindCheckpoint);
                };
                return self.form(now, ready, position, Origin::Retained, Some(source), out);
            }
        };
        let (position, origin, source) = match (retained, stored) {
            (Some((retained, source)), stored) if Some(retained) >= stored => {
                (retained, Origin::Retained, Some(source))
            }
            (_, Some(stored)) => (stored, Origin::Checkpoint, first),
            (_, None) => fresh,
        };
        self.form(now, ready, position, origin, source, out);
    }

    /// A survivor that does not leave its group is no survivor.
    pub(super) fn evict_unresponsive(&mut self, now: Now, out: &mut Vec<Action>) {
        let since = match &self.phase {
            Phase::Assembling(assembling) => assembling.since,
            _ => return,
        };
        let patience = ABORT_TIMEOUT.max(self.some_steps());
        if now.saturating_sub(since) < patience {
            return;
        }
        let stuck: Vec<WorkerId> = self.assigned().map(|(id, _, _)| id).collect();
        for worker in stuck {
            self.evict(now, worker, LossCause::UnresponsiveToAbort, out);
        }
    }
}
