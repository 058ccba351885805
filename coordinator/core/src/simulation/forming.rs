//! How a simulated worker gets into a group, and to the state that all begin with.

use super::cluster::Cluster;
use super::lineage::State;
use super::process::Doing;
use super::ring::{Part, Ring};
use crate::Command;
use crate::event::{Event, Origin};

impl Cluster {
    pub(super) fn form(&mut self, pid: usize, generation: u64) {
        let Some(Command::Assign {
            rank,
            world_size,
            store,
            position,
            ..
        }) = &self.processes[pid].order
        else {
            return;
        };
        let (rank, world_size) = (*rank, *world_size);
        let place = (generation, *position);
        let ring = match store {
            Some(address) => address.rsplit_once(':').and_then(|(_, n)| n.parse().ok()),
            None => None,
        };
        let opens = ring.is_none();
        let ring = ring.unwrap_or(self.rings.len());
        if opens {
            let of = self.processes[pid].session;
            let incarnation = of.map_or(0, |sid| self.sessions[sid].incarnation);
            self.rings
                .push(Ring::new(incarnation, generation, world_size));
            self.up(pid, |worker| Event::StoreListening {
                worker,
                generation,
                address: format!("host:{ring}"),
            });
        }
        let process = &mut self.processes[pid];
        (process.place, process.assignment) = (place, Some((ring, rank)));
        if process.halting {
            return self.broken_group(pid);
        }
        self.enter_doing(pid, Doing::Meeting);
        self.enter(pid, Part::Meet);
    }

    pub(super) fn share(&mut self, pid: usize) {
        let Some(Command::Assign {
            origin,
            source,
            rank,
            ..
        }) = &self.processes[pid].order
        else {
            return self.idle(pid);
        };
        if rank != source {
            self.enter_doing(pid, Doing::Sharing);
            return self.enter(pid, Part::Share(None));
        }
        match origin {
            Origin::Checkpoint => self.busy(pid, Doing::Fetching, 5, 200),
            Origin::Fresh => self.give(pid, State::fresh()),
            Origin::Retained => match self.processes[pid].state.clone() {
                Some(state) => self.give(pid, state),
                None => self.fail("the source holds a state", &format!("process {pid}")),
            },
        }
    }

    pub(super) fn fetched(&mut self, pid: usize) {
        let at = self.processes[pid].place.1;
        let whole = self.processes[pid].session.is_some();
        match self.disk.checkpoints.get(&at).filter(|_| whole) {
            Some(state) => {
                let state = state.clone();
                self.give(pid, state);
            }
            None => {
                if whole && !self.disk.was_corrupt {
                    self.fail("a checkpoint to begin with is there", &at.to_string());
                }
                self.broken_group(pid);
            }
        }
    }

    pub(super) fn give(&mut self, pid: usize, mut state: State) {
        let position = self.processes[pid].place.1;
        if position.epoch > state.position.epoch {
            state.next_epoch();
        }
        if state.position != position {
            self.fail(
                "a generation begins where its state stands",
                &format!("at {position}, not with {state:?}"),
            );
        }
        self.processes[pid].state = Some(state.clone());
        self.enter_doing(pid, Doing::Sharing);
        self.enter(pid, Part::Share(Some(state)));
    }

    pub(super) fn formed(&mut self, pid: usize) {
        let Some((ring, _)) = self.processes[pid].assignment else {
            return self.idle(pid);
        };
        let generation = self.rings[ring].generation;
        self.processes[pid].state = self.rings[ring].shared.clone();
        self.up(pid, |worker| Event::GroupReady { worker, generation });
        self.idle(pid);
    }
}
