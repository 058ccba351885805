//! Sessions: an ordered stream each way, with any delay, that may break at any time.

use worker_control::{Effect, Session as Link};

use super::cluster::{Cluster, Item};
use super::process::Kind;
use super::wire;
use crate::Command;
use crate::event::{Event, Heartbeat, WorkerId};

/// How long a worker tries to reach a lost coordinator.
const HOLD: u64 = 30_000;

pub(super) struct Session {
    pub(super) pid: usize,
    pub(super) incarnation: u32,
    pub(super) worker: Option<WorkerId>,
    /// The coordinator still reads it.
    pub(super) heard: bool,
    /// Messages in flight are lost.
    pub(super) cut: bool,
    /// The worker has received an answer to its registration.
    answered: bool,
    last_up: u64,
    last_down: u64,
    pub(super) last_upload: u64,
    /// The core knows what this worker retains.
    pub(super) scanned: bool,
    pub(super) prepared: bool,
}

impl Cluster {
    fn delay(&mut self) -> u64 {
        match self.between(0, 39) {
            0 => self.between(0, 2_000),
            1..4 => self.between(0, 200),
            _ => self.between(0, 15),
        }
    }

    pub(super) fn connect(&mut self, pid: usize) {
        let process = &self.processes[pid];
        if !process.alive || process.session.is_some() {
            return;
        }
        let Some(incarnation) = self.incarnation() else {
            let delay = self.between(100, 400);
            return self.after(delay, Item::Connect(pid));
        };
        let sid = self.sessions.len();
        self.sessions.push(Session {
            pid,
            incarnation,
            worker: None,
            heard: true,
            cut: false,
            answered: false,
            last_up: self.now,
            last_down: self.now,
            last_upload: self.now,
            scanned: false,
            prepared: false,
        });
        self.processes[pid].session = Some(sid);
        let delay = self.delay();
        let at = self.now + delay;
        self.sessions[sid].last_up = at;
        self.at(at, Item::Register(sid));
    }

    pub(super) fn register(&mut self, sid: usize) {
        let session = &self.sessions[sid];
        if session.cut || Some(session.incarnation) != self.incarnation() {
            return;
        }
        let pid = session.pid;
        let local_rank = self.processes[pid].local_rank;
        let worker = self.coordinator_name(sid);
        self.sessions[sid].worker = Some(worker);
        // A rogue client may also claim the process of another.
        self.submit(Event::Joined {
            worker,
            host: "host".to_owned(),
            pid: pid as u32,
            instance: pid as u64,
            local_rank,
        });
    }

    /// A process sends an event to the coordinator.
    pub(super) fn up(&mut self, pid: usize, event: impl FnOnce(WorkerId) -> Event) {
        let Some(sid) = self.processes[pid].session else {
            return;
        };
        let delay = self.delay();
        let session = &mut self.sessions[sid];
        let Some(worker) = session.worker else {
            return;
        };
        session.last_up = session.last_up.max(self.now + delay);
        let at = session.last_up;
        self.at(at, Item::Up(sid, event(worker)));
    }

    pub(super) fn receive_up(&mut self, sid: usize, event: Event) {
        let session = &mut self.sessions[sid];
        if session.cut || !session.heard || Some(session.incarnation) != self.incarnation() {
            return;
        }
        let scanned = matches!(event, Event::Scanned { .. });
        let prepared = matches!(event, Event::Prepared { .. })
            || matches!(&event, Event::Scanned { scan, .. }
                if scan.memory.prepared && scan.memory.retained.is_some());
        self.record(&event);
        self.inject_due(&event);
        let session = &mut self.sessions[sid];
        session.scanned |= scanned;
        session.prepared |= prepared;
        self.deliver(event);
        if self.scenario.redelivers && self.one_in(8) {
            self.repeat_an_old_message();
        }
    }

    pub(super) fn down(&mut self, sid: usize, command: Command) {
        let delay = self.delay();
        let session = &mut self.sessions[sid];
        session.last_down = session.last_down.max(self.now + delay);
        let at = session.last_down;
        self.at(at, Item::Down(sid, command));
    }

    /// The agent of a worker reads a message.
    pub(super) fn receive_down(&mut self, sid: usize, command: Command) {
        let session = &mut self.sessions[sid];
        let pid = session.pid;
        if session.cut || !self.processes[pid].alive || self.processes[pid].session != Some(sid) {
            return;
        }
        let first = !std::mem::replace(&mut session.answered, true);
        let process = &mut self.processes[pid];
        if process.kind == Kind::Rogue {
            if first && command == Command::Registered {
                self.after(1, Item::Rogue(sid));
            } else if matches!(command, Command::Shutdown { .. }) {
                self.end_process(pid, false);
            }
            return;
        }
        if first {
            if command != Command::Registered {
                return self.end_process(pid, false);
            }
            process.link = Some(Link::open(&mut process.inbox));
            self.after(1_000, Item::Heartbeat(sid));
            return self.notify(pid);
        }
        let (Some(link), Some(message)) = (&mut process.link, wire::message(command)) else {
            return;
        };
        let effect = link.receive(message, &mut process.inbox);
        self.follow(pid, effect);
    }

    /// The worker's process performs an effect of its session.
    fn follow(&mut self, pid: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::AbortCollectives => self.abort(pid),
            Effect::Exit => return self.end_process(pid, false),
            Effect::Drain => {
                self.up(pid, |worker| Event::Draining { worker });
                self.after(20_000, Item::Expire(pid, 0));
            }
        }
        self.notify(pid);
    }

    /// SIGTERM.
    pub(super) fn ask_to_end(&mut self, pid: usize) {
        match self.processes[pid].link.as_mut().map(Link::asked_to_end) {
            Some(effect) => self.follow(pid, effect),
            None => self.end_process(pid, false),
        }
    }

    /// The link of a session fails; both sides notice it, at different times.
    pub(super) fn cut(&mut self, sid: usize) {
        self.sessions[sid].cut = true;
        let (lost, broken) = (self.between(0, 3_000), self.between(0, 3_000));
        self.after(lost, Item::Lost(sid));
        self.after(broken, Item::Broken(sid));
    }

    /// The worker's side of a session is closed; earlier messages may still arrive.
    pub(super) fn close_session(&mut self, sid: usize, heard: bool) {
        self.sessions[sid].cut |= !heard;
        let delay = self.between(0, 50);
        let at = self.sessions[sid].last_up.max(self.now) + delay;
        self.at(at, Item::Lost(sid));
    }

    /// The coordinator finds a session broken.
    pub(super) fn session_lost(&mut self, sid: usize) {
        let session = &mut self.sessions[sid];
        if !std::mem::replace(&mut session.heard, false) {
            return;
        }
        let (worker, incarnation, pid) = (session.worker, session.incarnation, session.pid);
        // A stream that is closed on one side is closed on the other.
        if self.processes[pid].session == Some(sid) {
            let delay = self.between(0, 100);
            self.after(delay, Item::Broken(sid));
        }
        if Some(incarnation) == self.incarnation()
            && let Some(worker) = worker
        {
            self.forget(worker);
            self.submit(Event::Lost { worker });
        }
    }

    /// The worker finds its session broken: it leaves its group and reconnects.
    pub(super) fn session_broken(&mut self, sid: usize) {
        let pid = self.sessions[sid].pid;
        if !self.processes[pid].alive || self.processes[pid].session != Some(sid) {
            return;
        }
        self.sessions[sid].cut = true;
        let process = &mut self.processes[pid];
        (process.session, process.uploads, process.finished) = (None, 0, None);
        if process.kind == Kind::Rogue {
            return self.end_process(pid, false);
        }
        if let Some(link) = process.link.take() {
            let effect = link.broken(&mut process.inbox);
            self.settled(pid);
            self.follow(pid, effect);
            if effect == Effect::Exit {
                return;
            }
        }
        self.processes[pid].breaks += 1;
        let breaks = self.processes[pid].breaks;
        self.after(HOLD, Item::Expire(pid, breaks));
        let delay = match self.between(0, 9) {
            0 => return,
            1..4 => self.between(0, 6_000),
            _ => self.between(0, 300),
        };
        self.after(delay, Item::Connect(pid));
    }

    /// No coordinator is there, or it does not release the worker.
    pub(super) fn expire(&mut self, pid: usize, breaks: u64) {
        let process = &self.processes[pid];
        let unconnected = process.session.is_none() && process.breaks == breaks;
        if process.alive && (unconnected || process.is_draining()) {
            self.end_process(pid, false);
        }
    }

    pub(super) fn heartbeat(&mut self, sid: usize) {
        let pid = self.sessions[sid].pid;
        let process = &self.processes[pid];
        if !process.alive || process.session != Some(sid) {
            return;
        }
        let heartbeat = Heartbeat {
            generation: process.place.0,
            position: process.place.1,
            activity: process.activity(),
            seconds: (self.now - process.since) as f64 / 1_000.0,
        };
        self.up(pid, |worker| Event::Heartbeat { worker, heartbeat });
        self.after(1_000, Item::Heartbeat(sid));
    }
}
