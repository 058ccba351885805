//! The simulated worker's training thread: one order at a time, as the real one takes them.

use std::collections::BTreeSet;

use super::cluster::{Blob, Cluster, Item};
use super::process::{Cache, Doing, Kind, Order, Plan};
use super::ring::Waited;
use crate::Command;
use crate::event::{
    Event, FailureKind, Origin, Position, RetainedState, SaveState, Scan, ShutdownReason,
    StopReason,
};

impl Cluster {
    /// Something is in the inbox: a thread that waits for that looks.
    pub(super) fn prod(&mut self, pid: usize) {
        if matches!(self.processes[pid].doing, Doing::Idle | Doing::Parked) {
            self.wake_in(pid, 0);
        }
    }

    pub(super) fn enter_doing(&mut self, pid: usize, doing: Doing) {
        let process = &mut self.processes[pid];
        (process.doing, process.since) = (doing, self.now);
        process.token += 1;
    }

    /// The thread does `doing` for so many milliseconds.
    pub(super) fn busy(&mut self, pid: usize, doing: Doing, low: u64, high: u64) {
        self.enter_doing(pid, doing);
        if !self.processes[pid].hung {
            let delay = self.upto(low, high);
            self.wake_in(pid, delay);
        }
    }

    pub(super) fn wake(&mut self, pid: usize) {
        if self.processes[pid].hung && self.processes[pid].doing != Doing::Idle {
            return;
        }
        match self.processes[pid].doing {
            Doing::Idle => self.next_order(pid),
            Doing::Scanning => self.scanned(pid),
            Doing::Preparing => self.prepared(pid),
            Doing::Fetching => self.fetched(pid),
            Doing::Parked => self.may_step(pid),
            Doing::Computing => self.reduce(pid),
            Doing::Validating => self.validated(pid),
            Doing::Showing => self.shown(pid),
            Doing::Meeting | Doing::Sharing | Doing::Reducing | Doing::Averaging => {
                match self.look(pid) {
                    Waited::NotYet => {}
                    Waited::Broken => self.broken_group(pid),
                    Waited::Complete => self.through(pid),
                }
            }
        }
    }

    pub(super) fn through(&mut self, pid: usize) {
        match self.processes[pid].doing {
            Doing::Meeting => self.share(pid),
            Doing::Sharing => self.formed(pid),
            Doing::Reducing => self.stepped(pid),
            _ => self.validate(pid),
        }
    }

    pub(super) fn idle(&mut self, pid: usize) {
        self.enter_doing(pid, Doing::Idle);
        self.wake_in(pid, 0);
    }

    pub(super) fn next_order(&mut self, pid: usize) {
        let Some(order) = self.processes[pid].orders.pop_front() else {
            return;
        };
        let command = match order {
            Order::Scan => {
                self.leave_ring(pid);
                return self.busy(pid, Doing::Scanning, 1, 100);
            }
            Order::Do(command) => command,
        };
        match command {
            Command::Prepare { .. } => {
                self.processes[pid].order = Some(command);
                self.busy(pid, Doing::Preparing, 5, 800);
            }
            Command::Assign { generation, .. } => {
                self.leave_ring(pid);
                self.processes[pid].order = Some(command);
                self.form(pid, generation);
            }
            Command::Plan { .. } => self.plan(pid, command),
            Command::EpochResult {
                epoch, improved, ..
            } => self.take_result(pid, epoch, improved),
            Command::AbortGeneration { generation } => {
                self.leave_ring(pid);
                let retained = self.retained(pid);
                self.processes[pid].halting = false;
                self.up(pid, |worker| Event::GenerationAborted {
                    worker,
                    generation,
                    retained,
                });
                self.idle(pid);
            }
            Command::SaveState(keep) => {
                self.keep(pid, keep);
                self.idle(pid);
            }
            Command::Finish { generation, show } => {
                self.processes[pid].place.0 = generation;
                if !show.is_empty() {
                    self.upload(pid, Blob::Picture);
                }
                self.busy(pid, Doing::Showing, 1, 100);
            }
            Command::Shutdown { .. } => self.end_if_settled(pid),
            Command::Registered | Command::Grant { .. } => self.idle(pid),
        }
    }

    /// A rank gets its part of an epoch.
    fn plan(&mut self, pid: usize, command: Command) {
        let Command::Plan {
            generation,
            epoch,
            completed,
            shard,
            validation,
            ..
        } = command
        else {
            return;
        };
        let assignment = self.processes[pid].assignment;
        if assignment.is_none_or(|(ring, _)| self.rings[ring].generation != generation) {
            return self.idle(pid);
        }
        let at = self.processes[pid].state.as_ref().map(|s| s.position);
        if at != Some(Position { epoch, completed }) {
            self.fail(
                "a plan begins where the state is",
                &format!("process {pid} at {at:?} was given epoch {epoch} from {completed}"),
            );
        }
        self.processes[pid].plan = Some(Plan {
            generation,
            epoch,
            shard,
            chunks: validation,
            next: 0,
            offset: 0,
        });
        self.enter_doing(pid, Doing::Parked);
        self.wake_in(pid, 0);
    }

    /// A rank gets the result of an epoch, and keeps its weights if they are the best.
    fn take_result(&mut self, pid: usize, epoch: u32, improved: bool) {
        let process = &mut self.processes[pid];
        if let Some(state) = &mut process.state
            && state.position.epoch == epoch
        {
            if improved {
                process.best = Some((epoch, state.mark));
            }
            state.next_epoch();
        }
        self.idle(pid);
    }

    /// A process that is over ends when its uploads are with the coordinator.
    pub(super) fn end_if_settled(&mut self, pid: usize) {
        if self.processes[pid].uploads > 0 {
            self.processes[pid]
                .orders
                .push_front(Order::Do(Command::Shutdown {
                    reason: ShutdownReason::Ended(StopReason::Interrupted),
                    abort: false,
                }));
            return self.enter_doing(pid, Doing::Idle);
        }
        self.end_process(pid, false);
    }

    pub(super) fn retained(&self, pid: usize) -> Option<Position> {
        self.processes[pid].state.as_ref().map(|s| s.position)
    }

    pub(super) fn leave_ring(&mut self, pid: usize) {
        let process = &mut self.processes[pid];
        process.plan = None;
        process.waits_for = None;
        if let Some((ring, _)) = process.assignment.take() {
            self.break_ring(ring);
        }
    }

    /// The agent breaks the collectives of its thread, from outside of them.
    pub(super) fn abort(&mut self, pid: usize) {
        self.processes[pid].halting = true;
        if let Some((ring, _)) = self.processes[pid].assignment {
            self.break_ring(ring);
        }
        if self.processes[pid].is_blocked() {
            let delay = self.upto(0, 100);
            self.wake_in(pid, delay);
        }
    }

    pub(super) fn broken_group(&mut self, pid: usize) {
        let sharing = matches!(self.processes[pid].doing, Doing::Sharing | Doing::Fetching);
        if sharing && self.one_in(2) {
            self.drop_unshared(pid);
        }
        self.leave_ring(pid);
        self.up(pid, |worker| Event::Failed {
            worker,
            kind: FailureKind::Collective,
            message: "connection closed by peer".to_owned(),
        });
        self.idle(pid);
    }

    /// A rank that was to be given a state may be left with none; the source keeps its own.
    pub(super) fn drop_unshared(&mut self, pid: usize) {
        let gives = matches!(
            &self.processes[pid].order,
            Some(Command::Assign { origin: Origin::Retained, rank, source, .. }) if rank == source
        );
        if !gives {
            self.processes[pid].state = None;
        }
    }

    pub(super) fn scanned(&mut self, pid: usize) {
        let files = self.scenario.files.clone();
        let retained = self.retained(pid);
        let process = &mut self.processes[pid];
        process.halting = false;
        let other = process.kind == Kind::OtherData;
        let scan = Scan {
            fingerprint: if other { "other" } else { "same" }.to_owned(),
            classes: vec!["a".to_owned()],
            files: files.into_iter().skip(usize::from(other)).collect(),
            device: if process.kind == Kind::OtherDevice {
                "cuda:0"
            } else {
                "cpu"
            }
            .to_owned(),
            native_bf16: false,
            gpu_uuid: String::new(),
            memory: RetainedState {
                prepared: process.cache.is_some(),
                retained,
                best: process.best.map(|(epoch, _)| epoch),
            },
            warnings: Vec::new(),
        };
        self.up(pid, |worker| Event::Scanned { worker, scan });
        self.idle(pid);
    }

    pub(super) fn prepared(&mut self, pid: usize) {
        let Some(Command::Prepare {
            samples, shared, ..
        }) = self.processes[pid].order.take()
        else {
            return self.idle(pid);
        };
        let cached = samples.iter().filter(|s| !self.scenario.bad.contains(s));
        let cached: Vec<u32> = cached.copied().collect();
        let bad = samples.iter().filter(|s| self.scenario.bad.contains(s));
        let bad: Vec<_> = bad.map(|s| (*s, "truncated".to_owned())).collect();
        match (shared, self.processes[pid].session) {
            (true, Some(sid)) => {
                let of = self.sessions[sid].incarnation;
                self.shared_caches.entry(of).or_default().extend(cached);
                self.processes[pid].cache = Some(Cache::Shared(of));
            }
            _ => {
                let own: BTreeSet<u32> = cached.into_iter().collect();
                self.processes[pid].cache = Some(Cache::Own(own));
            }
        }
        self.up(pid, |worker| Event::Prepared { worker, bad });
        self.idle(pid);
    }

    pub(super) fn keep(&mut self, pid: usize, keep: SaveState) {
        let process = &self.processes[pid];
        let blob = match (keep, process.best, &process.state) {
            (SaveState::Best(epoch), Some((retained, mark)), _) if epoch == retained => {
                Blob::Best(epoch, mark)
            }
            (SaveState::Checkpoint, _, Some(state)) => Blob::Checkpoint(state.clone()),
            _ => self.fail(
                "a worker is asked only for what it holds",
                &format!("process {pid} for {keep:?}"),
            ),
        };
        self.upload(pid, blob);
    }

    pub(super) fn upload(&mut self, pid: usize, blob: Blob) {
        let Some(sid) = self.processes[pid].session else {
            return;
        };
        self.processes[pid].uploads += 1;
        let delay = if self.one_in(4) {
            self.upto(0, 700)
        } else {
            self.upto(1, 100)
        };
        let at = self.sessions[sid].last_upload.max(self.now) + delay;
        self.sessions[sid].last_upload = at;
        self.at(at, Item::Blob(sid, blob));
    }

    pub(super) fn shown(&mut self, pid: usize) {
        if self.processes[pid].uploads > 0 {
            return self.busy(pid, Doing::Showing, 50, 50);
        }
        let generation = self.processes[pid].place.0;
        self.up(pid, |worker| Event::Finished { worker, generation });
        self.idle(pid);
    }
}
