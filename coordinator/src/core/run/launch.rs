//! The processes of the local launcher: one for each slot, started again when it dies, though
//! not for ever.

use super::{Now, Phase, Run};
use crate::core::event::{Action, RunError, WorkerId};

/// On resuming, how long the workers of the former coordinator may take to come back before
/// others are started in their place.
const COME_BACK: Now = Now::from_secs(3);

/// A slot of the launcher.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The process that runs there, as long as it does.
    pid: Option<u32>,
    /// A start was asked for, and its process is not known yet.
    asked: bool,
    /// Since its last step.
    restarts: u32,
    /// Nobody is started here any more.
    closed: bool,
}

impl Slot {
    fn is_coming(&self) -> bool {
        self.asked || self.pid.is_some()
    }
}

impl Run {
    /// Starts what is missing of the launcher's first workers.
    pub(super) fn launch_missing(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.resumed.is_some() && now < COME_BACK {
            return;
        }
        if !matches!(self.phase, Phase::Gathering) {
            return;
        }
        for slot in 0..self.recipe.slots {
            let taken = self.members.values().any(|m| m.slot == Some(slot));
            if !taken && !self.slots.contains_key(&slot) {
                let started = Slot {
                    asked: true,
                    ..Slot::default()
                };
                self.slots.insert(slot, started);
                out.push(Action::Launch { slot });
            }
        }
    }

    /// Starts a worker in the place of a lost one, if its slot is the launcher's and has not
    /// failed too often.
    pub(super) fn replace(&mut self, slot: Option<u32>, out: &mut Vec<Action>) {
        let ending = matches!(self.phase, Phase::Finishing(_) | Phase::Closed);
        let Some(slot) = slot.filter(|slot| *slot < self.recipe.slots && !ending) else {
            return;
        };
        let max_restarts = self.recipe.max_restarts;
        let state = self.slots.entry(slot).or_default();
        if state.closed || state.restarts >= max_restarts {
            state.closed = true;
            state.pid = None;
            return;
        }
        state.restarts += 1;
        state.asked = true;
        state.pid = None;
        out.push(Action::Launch { slot });
    }

    /// Nobody is started in this slot any more: its worker was asked to end, or cannot work.
    pub(super) fn close_slot(&mut self, slot: Option<u32>) {
        if let Some(slot) = slot {
            self.slots.entry(slot).or_default().closed = true;
        }
    }

    /// A worker that makes steps has earned new chances.
    pub(super) fn works(&mut self, slot: Option<u32>) {
        if let Some(state) = slot.and_then(|slot| self.slots.get_mut(&slot)) {
            state.restarts = 0;
        }
    }

    pub(super) fn on_started(&mut self, slot: u32, pid: u32) {
        let state = self.slots.entry(slot).or_default();
        state.asked = false;
        state.pid = Some(pid);
    }

    pub(super) fn on_exited(
        &mut self,
        now: Now,
        slot: u32,
        pid: u32,
        signalled: bool,
        status: &str,
        out: &mut Vec<Action>,
    ) {
        let current = self.slots.get(&slot).and_then(|state| state.pid) == Some(pid);
        if current && let Some(state) = self.slots.get_mut(&slot) {
            state.pid = None;
        }
        let member = self
            .members
            .iter()
            .find(|(_, member)| member.slot == Some(slot) && member.pid == pid)
            .map(|(id, _)| *id);
        match member {
            Some(worker) => self.on_lost(now, worker, format!("its process {status}"), out),
            None if !current => {}
            // One that gives up by itself would do so again.
            None if !signalled && !self.born => {
                let status = status.to_owned();
                self.fail(RunError::ExitedEarly { slot, status }, out);
            }
            None => {
                self.replace(Some(slot), out);
                if !self.is_coming(slot) && !self.born {
                    let status = status.to_owned();
                    self.fail(RunError::ExitedEarly { slot, status }, out);
                }
            }
        }
    }

    fn is_coming(&self, slot: u32) -> bool {
        self.slots.get(&slot).is_some_and(Slot::is_coming)
    }

    /// Workers that the launcher has started, or others may start, and that cannot train yet.
    pub(super) fn somebody_may_come(&self) -> bool {
        let by_hand = self.recipe.slots == 0;
        by_hand || (0..self.recipe.slots).any(|slot| self.is_coming(slot) && !self.is_ready(slot))
    }

    fn is_ready(&self, slot: u32) -> bool {
        self.members
            .values()
            .any(|member| member.slot == Some(slot) && member.stage == super::Stage::Ready)
    }

    /// A slot that a live worker with another process holds.
    pub(super) fn slot_taken(&self, slot: Option<u32>, pid: u32) -> Option<WorkerId> {
        let slot = slot?;
        self.members
            .iter()
            .find(|(_, member)| member.slot == Some(slot) && member.pid != pid)
            .map(|(id, _)| *id)
    }
}
