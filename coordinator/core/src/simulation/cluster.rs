//! The clock of the simulation and the queue of its scheduled items.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::disk::{Disk, Jobs, Writer};
use super::driver::Coordinator;
use super::invariants::Invariants;
use super::lineage::State;
use super::network::Session;
use super::process::{Kind, Process};
use super::ring::Ring;
use super::scenario::Scenario;
use crate::event::Event;
use crate::random::SplitMix64;
use crate::{Command, Outcome};

/// Time that a run may take after the last fault.
const TIME_LIMIT: u64 = 600_000;
/// Time without a fault after which an operator restarts workers that hang.
const OPERATOR_DELAY: u64 = 40_000;

/// Something that is scheduled.
pub(super) enum Item {
    Tick(u32),
    /// A process tries to reach the coordinator.
    Connect(usize),
    Register(usize),
    Up(usize, Event),
    Down(usize, Command),
    /// The coordinator notices that a session is broken, and the worker does.
    Lost(usize),
    Broken(usize),
    Blob(usize, Blob),
    /// The recorder of this coordinator has written its first job.
    Written(u32, Writer),
    /// An event of the coordinator's own machine: its launcher or recorder.
    Local(u32, Event),
    Wake(usize, u64),
    Heartbeat(usize),
    /// A process has tried to connect, or waited to be released, for too long.
    Expire(usize, u64),
    Begin,
    Supervise,
    Rogue(usize),
}

#[derive(Clone)]
pub(super) enum Blob {
    Best(u32, u64),
    Checkpoint(State),
    Predictions,
}

struct Entry {
    at: u64,
    number: u64,
    item: Item,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) struct Cluster {
    pub(super) seed: u64,
    pub(super) verbose: bool,
    random: SplitMix64,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    number: u64,
    pub(super) events: u64,
    pub(super) scenario: Scenario,
    pub(super) coordinator: Option<Coordinator>,
    pub(super) incarnations: u32,
    pub(super) disk: Disk,
    pub(super) jobs: Jobs,
    pub(super) processes: Vec<Process>,
    pub(super) sessions: Vec<Session>,
    pub(super) rings: Vec<Ring>,
    pub(super) shared_caches: BTreeMap<u32, BTreeSet<u32>>,
    /// Until when the GPU of a local rank cannot be used.
    pub(super) resetting: BTreeMap<u32, u64>,
    pub(super) invariants: Invariants,
    /// How often things happened that the schedules are to contain.
    pub(super) tally: BTreeMap<&'static str, u64>,
    pub(super) outcome: Option<Outcome>,
    /// Faults that were injected so far.
    pub(super) injected: usize,
    pub(super) last_fault: u64,
    /// When the recorder's last answer arrives.
    pub(super) last_answer_at: u64,
    pub(super) record: Vec<Event>,
}

impl Cluster {
    pub(super) fn new(seed: u64, quiet: bool, verbose: bool) -> Self {
        let mut cluster = Self {
            seed,
            verbose,
            random: SplitMix64::keyed(&[seed, 0x436c_7573]),
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            events: 0,
            scenario: Scenario::new(seed, quiet),
            coordinator: None,
            incarnations: 0,
            disk: Disk::default(),
            jobs: Jobs::default(),
            processes: Vec::new(),
            sessions: Vec::new(),
            rings: Vec::new(),
            shared_caches: BTreeMap::new(),
            resetting: BTreeMap::new(),
            invariants: Invariants::default(),
            tally: BTreeMap::new(),
            outcome: None,
            injected: 0,
            last_fault: 0,
            last_answer_at: 0,
            record: Vec::new(),
        };
        if verbose {
            eprintln!("seed {seed}: {:#?}", cluster.scenario.recipe);
        }
        cluster.begin();
        if cluster.scenario.recipe.local_ranks == 0 {
            for _ in 0..cluster.scenario.recipe.workers {
                cluster.spawn(Kind::Normal, None, None);
            }
        }
        cluster
    }

    /// Plays until the run is over. If it was not completed, it is resumed once, without faults.
    pub(super) fn play(&mut self) {
        self.play_on();
        if self.is_unfinished() {
            self.log(|| "all processes are killed, and the run is resumed".to_owned());
            self.power_off();
            self.resetting.clear();
            self.begin();
            self.play_on();
            if self.is_unfinished() {
                self.fail(
                    "a resumed run without faults is completed",
                    &format!("{:?}", self.outcome),
                );
            }
        }
    }

    fn play_on(&mut self) {
        let mut intervened = false;
        while self.outcome.is_none() {
            let Some(Reverse(entry)) = self.queue.pop() else {
                self.fail("a run always ends", "nothing is scheduled any more");
            };
            self.now = entry.at;
            if self.has_faults_left() {
                self.last_fault = self.now;
            }
            let idle = self.now - self.last_fault;
            if idle > OPERATOR_DELAY && !intervened {
                intervened = true;
                self.intervene();
            }
            if idle > TIME_LIMIT {
                self.fail(
                    "a run always ends",
                    "it has not ended ten minutes after the last fault",
                );
            }
            self.dispatch(entry.item);
        }
    }

    /// An operator repairs a cluster that hangs.
    fn intervene(&mut self) {
        for pid in 0..self.processes.len() {
            let process = &self.processes[pid];
            // A resumed run does not know its device: the first worker may have the wrong one.
            let stuck = process.hung || process.frozen == Some(u64::MAX);
            let stays = !stuck && process.kind != Kind::OtherDevice;
            if !stays {
                self.end_process(pid, true);
            }
        }
        let missing = self.scenario.recipe.workers;
        for _ in 0..missing {
            self.supervise();
        }
        self.after(30_000, Item::Supervise);
    }

    fn dispatch(&mut self, item: Item) {
        let frozen = |cluster: &Self, pid: usize| {
            let frozen = cluster.processes[pid].frozen;
            frozen.filter(|until| *until > cluster.now)
        };
        let addressee = match &item {
            Item::Connect(pid) | Item::Wake(pid, _) | Item::Expire(pid, _) => Some(*pid),
            Item::Down(sid, _) | Item::Broken(sid) | Item::Heartbeat(sid) => {
                Some(self.sessions[*sid].pid)
            }
            _ => None,
        };
        if let Some(until) = addressee.and_then(|pid| frozen(self, pid)) {
            if until != u64::MAX {
                self.at(until, item);
            }
            return;
        }
        match item {
            Item::Tick(incarnation) if self.incarnation() == Some(incarnation) => {
                self.after(200, Item::Tick(incarnation));
                self.submit(Event::Tick);
            }
            Item::Tick(_) => {}
            Item::Connect(pid) => self.connect(pid),
            Item::Register(sid) => self.register(sid),
            Item::Up(sid, event) => self.receive_up(sid, event),
            Item::Down(sid, command) => self.receive_down(sid, command),
            Item::Lost(sid) => self.session_lost(sid),
            Item::Broken(sid) => self.session_broken(sid),
            Item::Blob(sid, blob) => self.receive(sid, blob),
            Item::Written(incarnation, writer) => self.written(incarnation, writer),
            Item::Local(incarnation, event) => {
                if self.incarnation() == Some(incarnation) {
                    self.submit(event);
                }
            }
            Item::Wake(pid, token) => {
                if self.processes[pid].alive && self.processes[pid].token == token {
                    self.wake(pid);
                }
            }
            Item::Heartbeat(sid) => self.heartbeat(sid),
            Item::Expire(pid, token) => self.expire(pid, token),
            Item::Begin => self.begin(),
            Item::Supervise => self.supervise(),
            Item::Rogue(sid) => self.send_rogue_message(sid),
        }
    }

    /// Whether faults are left to inject.
    pub(super) fn has_faults_left(&self) -> bool {
        self.injected < self.scenario.faults.len()
    }

    pub(super) fn at(&mut self, at: u64, item: Item) {
        self.number += 1;
        let number = self.number;
        self.queue.push(Reverse(Entry { at, number, item }));
    }

    pub(super) fn after(&mut self, delay: u64, item: Item) {
        self.at(self.now + delay, item);
    }

    /// A random number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.random.below(high - low + 1)
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.random.below(chances) == 0
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(super) fn log(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>8} ms  #{:<5} {}", self.now, self.events, line());
        }
    }

    /// Reports a violated invariant, with the seed that reproduces it.
    pub(super) fn fail(&self, invariant: &str, what: &str) -> ! {
        panic!(
            "violated after event {} of seed {}: {invariant}: {what}\n\
             reproduce: SIMULATION_SEED={} cargo test -p coordinator-core --lib one_seed -- --nocapture",
            self.events, self.seed, self.seed
        )
    }
}
