//! Members that go: lost, broken, put down, or asked to end.

use super::{Now, Pause, Phase, Run, Stage};
use crate::event::{Action, Cause, Command, Keep, Notice, RunError, WorkerId};

/// Groups that break in a row, with nobody lost and no step made, before the run gives up.
const FUTILE_GROUPS: u32 = 5;

/// Whether another worker is to come in the place of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    None,
    AtOnce,
    UnlessItReturns,
}

impl Run {
    pub(super) fn on_lost(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: String,
        out: &mut Vec<Action>,
    ) {
        self.drop_member(now, worker, &cause, Successor::UnlessItReturns, out);
    }

    /// The member is gone, whatever its process does. If it is to be replaced, its launcher
    /// does so, or somebody may.
    pub(super) fn drop_member(
        &mut self,
        now: Now,
        worker: WorkerId,
        cause: &str,
        successor: Successor,
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get(&worker) else {
            return;
        };
        // Whoever is not in the group takes nothing from it.
        if member.seat.is_some() {
            self.note_outage(now, Cause::Died);
        }
        let (who, when) = (self.describe(worker), self.whereabouts(worker));
        let Some(member) = self.members.remove(&worker) else {
            return;
        };
        if member.leaving {
            out.push(Action::Notify(Notice::Left { who }));
        } else if !self.has_finished(worker) {
            self.last_loss = (member.slot, format!("{who} {when}: {cause}"));
            out.push(Action::Notify(Notice::Lost {
                who,
                rank: member.seat.as_ref().map(|seat| seat.rank),
                slot: member.slot,
                when,
                cause: cause.to_owned(),
            }));
        }
        if self.awaits_checkpoint(worker) {
            self.awaited_checkpoint = None;
        }
        if self.awaited_best.is_some_and(|(_, id)| id == worker) {
            self.awaited_best = None;
        }
        let replace = successor != Successor::None && !member.leaving;
        if let (true, Some(slot)) = (replace, member.slot)
            && !(successor == Successor::UnlessItReturns && self.waits_for(now, slot, &member))
        {
            self.replace(slot, Some(&member), out);
        }
        let absent = usize::from(replace && member.slot.is_none());
        let seated = member.seat.is_some();
        if seated {
            self.futile = 0;
        }
        match &mut self.phase {
            Phase::Forming(_) | Phase::Training(_) if seated => self.halt(now, absent, out),
            Phase::Assembling(assembling) => {
                assembling.absent += absent;
                self.let_the_leaving_go(now, out);
                self.go_on(now, out);
            }
            Phase::Finishing(_) => self.lost_while_finishing(now, worker, out),
            _ => self.go_on(now, out),
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
        if self.members.get(&worker).is_some_and(|m| m.seat.is_some()) {
            self.note_outage(now, Cause::PutDown);
        }
        out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
        self.drop_member(now, worker, cause, Successor::AtOnce, out);
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
        if !seated || !matches!(self.phase, Phase::Forming(_) | Phase::Training(_)) {
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
        self.note_outage(now, Cause::GroupBroke);
        self.halt(now, 0, out);
    }

    pub(super) fn on_leaving(&mut self, now: Now, worker: WorkerId, out: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        member.leaving = true;
        let (slot, seated) = (member.slot, member.seat.is_some());
        // Whoever claims a place of the former coordinator's launcher, and goes before it has
        // shown to be a worker, does not keep others from it.
        if !(member.from_before && member.stage == Stage::Joined) {
            self.close_slot(slot);
        }
        match self.phase {
            Phase::Training(_) if seated => self.pause(now, Pause::Regroup, out),
            Phase::Forming(_) if seated => self.halt(now, 0, out),
            _ => self.let_the_leaving_go(now, out),
        }
    }

    /// Lets those go who were asked to end and have left their group, once nothing is lost with
    /// them.
    pub(super) fn let_the_leaving_go(&mut self, now: Now, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Closed) {
            return;
        }
        let free = |(id, member): (&WorkerId, &super::Member)| {
            (member.leaving && member.seat.is_none()).then_some(*id)
        };
        let leaving: Vec<WorkerId> = self.members.iter().filter_map(free).collect();
        for worker in leaving {
            if !self.is_needed(worker, out) && self.members.contains_key(&worker) {
                let (reason, abort) = ("it was asked to end".to_owned(), false);
                out.push(Action::Send(worker, Command::Shutdown { reason, abort }));
                // Others may go with it, or the whole run.
                return self.drop_member(now, worker, "it was asked to end", Successor::None, out);
            }
        }
    }

    /// Whether a worker has something that nobody else has; it is asked for that.
    fn is_needed(&mut self, worker: WorkerId, out: &mut Vec<Action>) -> bool {
        if self.gives_the_best(worker, out) {
            return true;
        }
        let held = |member: &super::Member| member.held.and_then(|at| self.restart_of(at));
        let Some(mine) = self.members.get(&worker).and_then(held) else {
            return false;
        };
        let others = self.members.values().filter(|member| !member.leaving);
        let spared = self.is_durable(mine)
            || others
                .into_iter()
                .any(|other| other.seat.is_some() || held(other) >= Some(mine));
        if spared || self.best_is_missing() {
            return false;
        }
        if self.best_is_safe() && self.awaited_checkpoint.is_none() {
            self.awaited_checkpoint = Some((worker, mine));
            out.push(Action::Send(worker, Command::Keep(Keep::Checkpoint)));
        }
        true
    }
}
