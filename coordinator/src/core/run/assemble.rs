//! Between two generations: who is gone, who has halted, who comes, and from which state it
//! goes on.

use super::{Assembling, Looked, Now, Outage, Pause, Phase, Run, Stage};
use crate::core::event::{Action, Command, Notice, Origin, Position, RunError, WorkerId};

/// How long a survivor may take to leave a broken generation.
const HALT_TIMEOUT: Now = Now::from_secs(15);
/// Groups that break in a row, with nobody lost and no step made, before the run gives up.
const FUTILE_GROUPS: u32 = 5;

impl Run {
    pub(super) fn on_lost(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: String,
        out: &mut Vec<Action>,
    ) {
        self.drop_member(now, worker, &cause, true, out);
    }

    /// The member is gone, whatever its process does.
    pub(super) fn drop_member(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: &str,
        replace: bool,
        out: &mut Vec<Action>,
    ) {
        if !self.members.contains_key(&worker) {
            return;
        }
        let (who, when) = (self.describe(worker), self.whereabouts(worker));
        let seated = self.world_size();
        self.note_outage(now);
        let Some(member) = self.members.remove(&worker) else {
            return;
        };
        let finished = matches!(self.phase, Phase::Finishing(_))
            && member.seat.as_ref().is_none_or(|seat| seat.finished);
        if member.leaving {
            out.push(Action::Notify(Notice::Left { who }));
        } else if !finished {
            self.last_loss = (member.slot, format!("{who} {when}: {cause}"));
            out.push(Action::Notify(Notice::Lost {
                who,
                rank: member.seat.as_ref().map(|seat| seat.rank),
                slot: member.slot,
                when,
                cause: cause.to_owned(),
            }));
        }
        if self.awaited_checkpoint == Some(worker) {
            self.awaited_checkpoint = None;
        }
        if self.awaited_best.is_some_and(|(_, id)| id == worker) {
            self.awaited_best = None;
        }
        self.ask_for_best(out);
        if replace && !member.leaving {
            self.replace(member.slot, out);
        }
        let seat_lost = member.seat.is_some();
        match &self.phase {
            Phase::Forming { .. } | Phase::Training(_) if seat_lost => {
                let gone = usize::from(member.leaving || !replace);
                self.halt(now, seated - gone, out);
            }
            Phase::Gathering if self.recipe.slots == 0 || self.somebody_may_come() => {}
            Phase::Preparing if self.recipe.slots == 0 || self.somebody_may_come() => {}
            Phase::Gathering | Phase::Preparing => self.too_few(out),
            Phase::Forming { .. } | Phase::Training(_) | Phase::Closed => {}
            Phase::Assembling(_) => self.assemble_if_possible(now, out),
            Phase::Finishing(_) => self.lost_while_finishing(now, worker, out),
        }
    }

    pub(super) fn on_leaving(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.leaving = true;
        let (slot, seated) = (member.slot, member.seat.is_some());
        self.close_slot(slot);
        match self.phase {
            Phase::Training(_) if seated => self.pause(now, Pause::Regroup, out),
            Phase::Forming { .. } if seated => self.halt(now, self.world_size() - 1, out),
            Phase::Finishing(_) | Phase::Closed => {}
            _ => self.let_go(now, worker, out),
        }
    }

    fn let_go(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let (reason, abort) = ("it was asked to end".to_owned(), false);
        out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
        self.drop_member(now, worker, "it was asked to end", false, out);
    }

    /// Ends the generation: all leave it, keep what they have, and say so.
    pub(super) fn halt(&mut self, now: Now, expected: usize, out: &mut Vec<Action>) {
        let generation = self.generation;
        let halt = |id| Action::Send(id, Command::Halt { generation });
        out.extend(self.seated().map(|(id, _, _)| halt(id)));
        self.assemble(now, expected, out);
    }

    pub(super) fn assemble(&mut self, now: Now, expected: usize, out: &mut Vec<Action>) {
        if self.pause == Some(Pause::Regroup) {
            self.pause = None;
        }
        self.phase = Phase::Assembling(Assembling {
            since: now,
            expected,
            checkpoint: Looked::NotYet,
            said: String::new(),
        });
        self.assemble_if_possible(now, out);
    }

    /// Remembers when training stood still, and how far it had come by then.
    pub(super) fn note_outage(&mut self, now: Now) {
        let working = matches!(self.phase, Phase::Training(_) | Phase::Forming { .. });
        if working && self.born && self.outage.is_none() {
            let reported = self.seated().map(|(_, _, seat)| seat.completed).max();
            self.outage = Some(Outage {
                since: now,
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
        held: Option<Position>,
        out: &mut Vec<Action>,
    ) {
        if generation != self.generation || !matches!(self.phase, Phase::Assembling(_)) {
            return;
        }
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.seat = None;
        member.held = held;
        if member.leaving {
            return self.let_go(now, worker, out);
        }
        self.assemble_if_possible(now, out);
    }

    /// A worker has become able to train.
    pub(super) fn on_ready(&mut self, now: Now, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Training(_) if self.world_size() < self.recipe.max_workers => {
                self.pause(now, Pause::Regroup, out);
            }
            Phase::Assembling(_) => self.assemble_if_possible(now, out),
            _ => {}
        }
    }

    pub(super) fn assemble_if_possible(&mut self, now: Now, out: &mut Vec<Action>) {
        match self.assembled(now) {
            Ok(ready) => self.form_from_the_best_state(now, &ready, out),
            Err(Some(reason)) => self.say_waiting(reason, out),
            Err(None) => self.too_few(out),
        }
    }

    /// The members of the next generation, or why it cannot be formed yet. `None`: ever.
    fn assembled(&self, now: Now) -> Result<Vec<WorkerId>, Option<String>> {
        let Phase::Assembling(assembling) = &self.phase else {
            return Err(Some(String::new()));
        };
        if let Some((id, _, _)) = self.seated().next() {
            let who = self.describe(id);
            return Err(Some(format!("{who} to leave the broken group")));
        }
        if let Some(Pause::Stop(_)) = self.pause {
            return Ok(Vec::new());
        }
        let mut ready: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Ready && !member.leaving)
            .map(|(id, _)| *id)
            .collect();
        ready.truncate(self.recipe.max_workers);
        let waited = now.saturating_sub(assembling.since) >= self.recipe.rejoin_timeout;
        if ready.len() >= assembling.expected.max(self.recipe.min_workers) {
            return Ok(ready);
        }
        let coming = self.somebody_may_come();
        if ready.len() >= self.recipe.min_workers && (waited || !coming) {
            return Ok(ready);
        }
        if !coming || (waited && self.recipe.slots == 0) {
            return Err(None);
        }
        let (have, need) = (
            ready.len(),
            assembling.expected.max(self.recipe.min_workers),
        );
        Err(Some(format!("{} of {need} workers", need - have)))
    }

    fn say_waiting(&mut self, reason: String, out: &mut Vec<Action>) {
        if let Phase::Assembling(assembling) = &mut self.phase
            && assembling.said != reason
        {
            assembling.said.clone_from(&reason);
            out.push(Action::Notify(Notice::Waiting { reason }));
        }
    }

    fn too_few(&mut self, out: &mut Vec<Action>) {
        let missing = format!(
            "{} of the at least {} workers are left, and none comes",
            self.members.len(),
            self.recipe.min_workers
        );
        let (slot, last) = self.last_loss.clone();
        self.fail(
            RunError::TooFewWorkers {
                missing,
                slot,
                last,
            },
            out,
        );
    }

    /// Goes on from the furthest state that somebody holds, else from the run directory's, else
    /// from the beginning.
    fn form_from_the_best_state(&mut self, now: Now, ready: &[WorkerId], out: &mut Vec<Action>) {
        if let Some(Pause::Stop(reason)) = self.pause {
            return self.finish(now, reason, out);
        }
        let held = ready
            .iter()
            .filter_map(|id| Some((self.normal(self.members.get(id)?.held?), *id)))
            .filter(|(position, _)| self.is_past(*position))
            // The first of those that hold as much.
            .max_by_key(|(position, id)| (*position, std::cmp::Reverse(*id)));
        let (start, origin) = (Position::start_of(1), Origin::Fresh);
        if !self.born {
            return self.form(ready, start, origin, ready.first().copied(), out);
        }
        let Phase::Assembling(assembling) = &mut self.phase else {
            return;
        };
        let looked = assembling.checkpoint;
        let missing = self.best_is_missing();
        match (held, looked) {
            (Some((position, source)), Looked::NotYet | Looked::Found(None))
                if !missing && Some(position) >= self.durable =>
            {
                self.form(ready, position, Origin::Held, Some(source), out);
            }
            (_, Looked::NotYet) => {
                if let Phase::Assembling(assembling) = &mut self.phase {
                    assembling.checkpoint = Looked::Asked;
                }
                out.push(Action::FindCheckpoint);
            }
            (_, Looked::Asked) => {}
            (Some((held, source)), Looked::Found(Some(position)))
                if !missing && held >= position =>
            {
                self.form(ready, held, Origin::Held, Some(source), out);
            }
            (_, Looked::Found(Some(position))) => {
                self.form(
                    ready,
                    position,
                    Origin::Checkpoint,
                    ready.first().copied(),
                    out,
                );
            }
            (Some((position, source)), Looked::Found(None)) => {
                self.form(ready, position, Origin::Held, Some(source), out);
            }
            (None, Looked::Found(None)) => {
                self.form(ready, start, origin, ready.first().copied(), out);
            }
        }
    }

    /// A group that broke although all of its members live.
    pub(super) fn on_broken_group(
        &mut self,
        now: Now,
        worker: WorkerId,
        message: &str,
        out: &mut Vec<Action>,
    ) {
        let seated = self.members.get(&worker).is_some_and(|m| m.seat.is_some());
        if !seated || !matches!(self.phase, Phase::Forming { .. } | Phase::Training(_)) {
            return;
        }
        let slot = self.members.get(&worker).and_then(|member| member.slot);
        let (who, when) = (self.describe(worker), self.whereabouts(worker));
        self.last_loss = (slot, format!("{who} {when}: {message}"));
        self.futile += 1;
        if self.futile > FUTILE_GROUPS {
            let missing = format!("{FUTILE_GROUPS} groups in a row broke before a step was made");
            let (slot, last) = self.last_loss.clone();
            return self.fail(
                RunError::TooFewWorkers {
                    missing,
                    slot,
                    last,
                },
                out,
            );
        }
        self.note_outage(now);
        self.halt(now, self.world_size(), out);
    }

    /// A survivor that does not leave its group is no survivor.
    pub(super) fn drop_the_stuck(&mut self, now: Now, out: &mut Vec<Action>) {
        let since = match &self.phase {
            Phase::Assembling(assembling) => assembling.since,
            _ => return,
        };
        if now.saturating_sub(since) < HALT_TIMEOUT {
            return;
        }
        let stuck: Vec<WorkerId> = self.seated().map(|(id, _, _)| id).collect();
        for worker in stuck {
            self.put_down(now, worker, "it does not leave the broken group", out);
        }
    }

    /// Loses a member on purpose: its process is told to end, and replaced.
    pub(super) fn put_down(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: &str,
        out: &mut Vec<Action>,
    ) {
        let (reason, abort) = (cause.to_owned(), true);
        out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
        self.drop_member(now, worker, cause, true, out);
    }
}
