//! The collectives of one generation: each completes only when every rank has entered it, and
//! fails for the waiting ranks when one of them is lost.

use std::collections::BTreeMap;

use super::cluster::{Cluster, Item};
use super::lineage::State;
use crate::event::Position;

/// The process group of a generation.
pub(super) struct Ring {
    pub(super) incarnation: u32,
    pub(super) generation: u64,
    world_size: u32,
    /// The process at each rank.
    members: BTreeMap<u32, usize>,
    broken: bool,
    /// Collectives that are complete.
    pub(super) complete: u32,
    entered: BTreeMap<u32, Part>,
    /// The state that the source has broadcast.
    pub(super) shared: Option<State>,
    /// All samples of the last step, over which the gradients are reduced.
    pub(super) reduced: Vec<u32>,
}

/// One rank's part of a collective.
pub(super) enum Part {
    Rendezvous,
    /// The state, from the source.
    Broadcast(Option<State>),
    /// Position and mark before the step, and the rank's samples.
    Step(Position, u64, Vec<u32>),
    Average(Position),
}

/// The result of a wait for a collective.
pub(super) enum Waited {
    Complete,
    Broken,
    NotYet,
}

impl Ring {
    pub(super) fn new(incarnation: u32, generation: u64, world_size: u32) -> Self {
        Self {
            incarnation,
            generation,
            world_size,
            members: BTreeMap::new(),
            broken: false,
            complete: 0,
            entered: BTreeMap::new(),
            shared: None,
            reduced: Vec::new(),
        }
    }

    fn close(&mut self, parts: Vec<Part>) -> Result<(), String> {
        let same = parts.windows(2).all(|pair| match (&pair[0], &pair[1]) {
            (Part::Step(a, m, _), Part::Step(b, n, _)) => (a, m) == (b, n),
            (Part::Average(a), Part::Average(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        });
        if !same {
            return Err(format!(
                "the ranks of generation {} are in different steps",
                self.generation
            ));
        }
        self.reduced.clear();
        for part in parts {
            match part {
                Part::Broadcast(Some(state)) => self.shared = Some(state),
                Part::Step(_, _, samples) => self.reduced.extend(samples),
                _ => {}
            }
        }
        self.complete += 1;
        Ok(())
    }
}

impl Cluster {
    /// A process enters the next collective with its rank's part, and waits.
    pub(super) fn enter(&mut self, pid: usize, part: Part) {
        let Some((at, rank)) = self.processes[pid].assignment else {
            return;
        };
        self.processes[pid].waits_for = self.processes[pid].waits_for.map(|n| n + 1).or(Some(1));
        let ring = &mut self.rings[at];
        ring.members.insert(rank, pid);
        if ring.broken {
            return self.notice_break(pid);
        }
        ring.entered.insert(rank, part);
        if ring.entered.len() < ring.world_size as usize {
            return;
        }
        let parts: Vec<Part> = std::mem::take(&mut ring.entered).into_values().collect();
        let position = match &parts[0] {
            Part::Step(position, ..) => Some(*position),
            _ => None,
        };
        if let Err(what) = ring.close(parts) {
            self.fail("the ranks of a step are in the same step", &what);
        }
        let (incarnation, generation) = (self.rings[at].incarnation, self.rings[at].generation);
        let members: Vec<usize> = self.rings[at].members.values().copied().collect();
        if let Some(position) = position {
            let samples = std::mem::take(&mut self.rings[at].reduced);
            self.check_step((incarnation, generation), &members, position, &samples);
            self.rings[at].reduced = samples;
        }
        for pid in members {
            let delay = self.between(0, 12);
            self.wake_in(pid, delay);
        }
    }

    /// The state of the collective that a process waits for.
    pub(super) fn look(&mut self, pid: usize) -> Waited {
        let process = &self.processes[pid];
        let (Some((at, _)), Some(number)) = (process.assignment, process.waits_for) else {
            return Waited::Broken;
        };
        let ring = &self.rings[at];
        let (complete, broken) = (ring.complete >= number, ring.broken);
        match (complete, broken) {
            // All ranks have entered: whether a rank has the result when the group breaks is a
            // matter of timing.
            (true, true) if self.one_in(2) => Waited::Broken,
            (true, _) => Waited::Complete,
            (false, true) => Waited::Broken,
            (false, false) => Waited::NotYet,
        }
    }

    /// A member, or its connections, are lost.
    pub(super) fn break_ring(&mut self, at: usize) {
        if std::mem::replace(&mut self.rings[at].broken, true) {
            return;
        }
        let members: Vec<usize> = self.rings[at].members.values().copied().collect();
        for pid in members {
            let process = &self.processes[pid];
            if process.assignment.map(|(ring, _)| ring) == Some(at) && process.is_blocked() {
                self.notice_break(pid);
            }
        }
    }

    /// A member notices a broken group: usually at once, sometimes only by its timeout.
    fn notice_break(&mut self, pid: usize) {
        let delay = if self.one_in(4) {
            self.between(500, 9_000)
        } else {
            self.between(0, 300)
        };
        self.wake_in(pid, delay);
    }

    pub(super) fn wake_in(&mut self, pid: usize, delay: u64) {
        let token = self.processes[pid].token;
        self.after(delay, Item::Wake(pid, token));
    }
}
