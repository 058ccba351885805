//! Performs the core's actions in the simulation, as the driver does in the program.

use std::collections::{BTreeMap, VecDeque};

use super::cluster::{Cluster, Item};
use super::disk::Job;
use super::process::Kind;
use crate::event::{Fact, StopReason, WorkerId};
use crate::{Action, Event, Run};

pub(super) struct Coordinator {
    pub(super) run: Run,
    pub(super) incarnation: u32,
    started: u64,
    pub(super) sessions: BTreeMap<WorkerId, usize>,
    /// Of the epochs whose records were handed over, durable or not.
    pub(super) validation_losses: Vec<f64>,
    next_name: u64,
}

impl Cluster {
    /// The coordinator that runs, if one does.
    pub(super) fn incarnation(&self) -> Option<u32> {
        self.coordinator.as_ref().map(|c| c.incarnation)
    }

    /// A coordinator starts, with what is durable.
    pub(super) fn begin(&mut self) {
        self.incarnations += 1;
        let recipe = self.scenario.recipe.clone();
        let run = match self.disk.resumed() {
            Some(resumed) => {
                self.count("resumed coordinators");
                Run::resume(recipe, resumed)
            }
            None => {
                self.disk.validation_losses.clear();
                match self.incarnations {
                    1 => Run::new(recipe),
                    _ => Run::inherit(recipe),
                }
            }
        };
        self.coordinator = Some(Coordinator {
            run,
            incarnation: self.incarnations,
            started: self.now,
            sessions: BTreeMap::new(),
            validation_losses: self.disk.validation_losses.clone(),
            next_name: 0,
        });
        self.reset_invariants();
        self.log(|| "a coordinator starts".to_owned());
        self.after(0, Item::Tick(self.incarnations));
    }

    /// The coordinator is killed, with everything that was in progress.
    pub(super) fn crash(&mut self) {
        let Some(_) = self.coordinator.take() else {
            return;
        };
        // Jobs in progress may be durable; those behind them are not.
        let mut lost = Vec::new();
        for job in self.jobs.in_progress() {
            if self.one_in(2) {
                self.write(job);
            } else {
                lost.push(job);
            }
        }
        lost.extend(self.jobs.take());
        if lost.iter().any(|job| matches!(job, Job::Epoch(..))) {
            self.count("epoch records lost");
        }
        for sid in 0..self.sessions.len() {
            let session = &mut self.sessions[sid];
            if session.incarnation == self.incarnations && !session.cut {
                session.cut = true;
                let delay = self.between(0, 4_000);
                self.after(delay, Item::Broken(sid));
            }
        }
    }

    /// All processes are killed.
    pub(super) fn power_off(&mut self) {
        self.crash();
        for pid in 0..self.processes.len() {
            self.end_process(pid, true);
        }
        self.outcome = None;
        self.last_fault = self.now;
        self.injected = self.scenario.faults.len();
        if self.scenario.recipe.local_ranks == 0 {
            for _ in 0..self.scenario.recipe.workers {
                self.spawn(Kind::Normal, None, None);
            }
        }
    }

    pub(super) fn coordinator_name(&mut self, sid: usize) -> WorkerId {
        let Some(coordinator) = &mut self.coordinator else {
            return WorkerId(u64::MAX);
        };
        let worker = WorkerId(coordinator.next_name);
        coordinator.next_name += 1;
        coordinator.sessions.insert(worker, sid);
        worker
    }

    /// One event of the core, and whatever follows from it.
    pub(super) fn submit(&mut self, event: Event) {
        self.inject_due(&event);
        self.deliver(event);
    }

    /// What the core does with an event.
    pub(super) fn deliver(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(coordinator) = &mut self.coordinator else {
                return;
            };
            let now = std::time::Duration::from_millis(self.now - coordinator.started);
            if self.verbose && event != Event::Tick {
                eprintln!("{:>8} ms  #{:<5} {event:?}", self.now, self.events);
            }
            let actions = coordinator.run.step(now, event.clone());
            self.note_durable(&event);
            self.check_actions(&actions);
            for action in actions {
                if self.verbose {
                    eprintln!("                      -> {}", brief(&action));
                }
                if let Some(event) = self.perform(action) {
                    events.push_back(event);
                }
            }
        }
        if self.outcome.is_some() {
            self.crash();
        }
    }

    /// What is to go wrong before this event does. Most of the time nothing but the clock moves:
    /// trouble comes while something happens.
    pub(super) fn inject_due(&mut self, event: &Event) {
        self.events += if *event == Event::Tick { 1 } else { 4 };
        while self
            .scenario
            .faults
            .get(self.injected)
            .is_some_and(|at| *at <= self.events)
        {
            self.injected += 1;
            self.inject();
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(worker, command) => {
                let coordinator = self.coordinator.as_ref()?;
                let sid = *coordinator.sessions.get(&worker)?;
                self.down(sid, command);
                None
            }
            Action::Notify(notice) => {
                self.observe(&notice);
                None
            }
            Action::Launch { local_rank } => Some(self.launch(local_rank)),
            Action::FindCheckpoint => {
                self.order(Job::Find);
                None
            }
            Action::End(outcome) => {
                self.flush();
                self.check_end(&outcome);
                self.count(match &outcome {
                    Ok(reason) => reason.label(),
                    Err(_) => "failed",
                });
                self.outcome = Some(outcome);
                None
            }
        }
    }

    fn observe(&mut self, notice: &Fact) {
        match notice {
            Fact::SplitReady { files, split, .. } => {
                let paths = |indices: &[u32]| -> Vec<String> {
                    indices
                        .iter()
                        .map(|at| files[*at as usize].clone())
                        .collect()
                };
                let (train, validation) = (paths(&split.train), paths(&split.validation));
                self.order(Job::Split(train, validation));
            }
            Fact::EpochEnded {
                epoch, stopping, ..
            } => {
                self.check_epoch(epoch, *stopping);
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.validation_losses.push(epoch.validation_loss);
                }
                self.order(Job::Epoch(epoch.validation_loss, epoch.generation));
            }
            Fact::Lost { .. } => self.count("workers lost"),
            Fact::Left { .. } => self.count("workers left"),
            Fact::Refused { .. } => self.count("workers refused"),
            Fact::Stalled(_) => self.count("stalls reported"),
            Fact::Recovered { .. } => self.count("recoveries"),
            Fact::RolledBack { position, .. } => {
                self.count("rollbacks");
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator
                        .validation_losses
                        .truncate(position.epoch as usize - 1);
                }
                self.order(Job::RollBack(*position));
            }
            _ => {}
        }
    }

    fn launch(&mut self, local_rank: u32) -> Event {
        let parent = self.incarnations;
        let former = self.processes.iter().position(|process| {
            process.alive
                && process.local_rank == Some(local_rank)
                && process.parent == Some(parent)
        });
        if let Some(former) = former {
            self.end_process(former, true);
        }
        let pid = self.spawn(Kind::Normal, Some(local_rank), Some(parent));
        if self.has_faults_left() && self.one_in(12) {
            self.invariants.early_crash = true;
            self.end_process(pid, true);
        }
        Event::ProcessStarted {
            local_rank,
            pid: pid as u32,
        }
    }

    /// Whether the run can, and has to, be resumed.
    pub(super) fn is_unfinished(&self) -> bool {
        !matches!(
            self.outcome,
            Some(Ok(StopReason::Patience
                | StopReason::MaxEpochs
                | StopReason::NonFiniteLoss))
        )
    }
}

fn brief(action: &Action) -> String {
    let mut text = format!("{action:?}");
    if let Some((at, _)) = text.char_indices().nth(400) {
        text.truncate(at);
    }
    text
}
