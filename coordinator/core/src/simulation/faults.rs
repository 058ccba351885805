//! The faults of the simulation, and clients that are not workers.

use super::cluster::{Cluster, Item};
use super::process::{Doing, Kind};
use super::wire::to_core;
use crate::event::{Activity, ValidationSum};
use crate::event::{
    EpochReport, Event, FailureKind, Heartbeat, Phases, Position, StepReport, WorkerId,
};

impl Cluster {
    /// Injects one fault.
    pub(super) fn inject(&mut self) {
        self.last_fault = self.now;
        self.count("faults");
        match self.between(0, 24) {
            0..5 => self.kill(1),
            5 => {
                let count = self.between(2, 3);
                self.kill(count);
            }
            6 => self.kill(u64::MAX),
            7..10 => self.break_session(),
            10 => self.hang_thread(),
            11 => self.stop_process(),
            12..14 => self.drain_worker(),
            14 => {
                self.log(|| "fault: a worker joins late".to_owned());
                self.spawn(Kind::Normal, None, None);
            }
            15 => self.add_faulty_client(),
            16..19 => self.kill_coordinator(),
            19 => {
                if let Some(newest) = self.disk.newest() {
                    self.log(|| format!("fault: the checkpoint at {newest} is corrupt"));
                    self.disk.checkpoints.remove(&newest);
                    self.disk.was_corrupt = true;
                }
            }
            20 => {
                self.log(|| "fault: Ctrl-C".to_owned());
                self.invariants.interrupted = true;
                self.submit(Event::Interrupt);
            }
            21 => self.repeat_old_messages(),
            22 => self.break_gpu(),
            _ => self.break_group(),
        }
    }

    fn pick(&mut self, fit: impl Fn(&super::process::Process) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.processes.len())
            .filter(|pid| self.processes[*pid].alive && fit(&self.processes[*pid]))
            .collect();
        if fit.is_empty() {
            return None;
        }
        let at = self.between(0, fit.len() as u64 - 1);
        Some(fit[at as usize])
    }

    fn kill(&mut self, count: u64) {
        for _ in 0..count {
            let Some(pid) = self.pick(|_| true) else {
                return;
            };
            self.log(|| format!("fault: process {pid} is killed"));
            self.invariants.losses += 1;
            self.end_process(pid, true);
        }
    }

    fn break_session(&mut self) {
        if let Some(pid) = self.pick(|p| p.session.is_some())
            && let Some(sid) = self.processes[pid].session
        {
            self.log(|| format!("fault: the session of process {pid} breaks"));
            self.invariants.losses += 1;
            self.cut(sid);
        }
    }

    fn hang_thread(&mut self) {
        let busy = |p: &super::process::Process| {
            p.assignment.is_some() && !matches!(p.doing, Doing::Idle | Doing::Uploading)
        };
        if let Some(pid) = self.pick(busy) {
            self.log(|| format!("fault: the thread of process {pid} hangs"));
            self.invariants.losses += 1;
            self.processes[pid].hung = true;
            self.processes[pid].token += 1;
        }
    }

    /// A stopped process sends nothing; the coordinator soon treats it as lost.
    fn stop_process(&mut self) {
        if let Some(pid) = self.pick(|p| p.frozen.is_none_or(|until| until < u64::MAX)) {
            let until = if self.one_in(3) {
                u64::MAX
            } else {
                self.now + self.between(500, 20_000)
            };
            self.log(|| format!("fault: process {pid} is stopped until {until}"));
            self.invariants.losses += 1;
            // Items that wait until it continues must not be overtaken by later ones.
            let until = until.max(self.processes[pid].frozen.unwrap_or(0));
            self.processes[pid].frozen = Some(until);
            if let Some(sid) = self.processes[pid].session
                && until > self.now + 5_000
            {
                self.sessions[sid].cut = true;
                self.after(5_000, Item::Lost(sid));
            }
        }
    }

    fn drain_worker(&mut self) {
        let Some(pid) =
            self.pick(|p| !p.is_draining() && p.kind == Kind::Normal && p.frozen.is_none())
        else {
            return;
        };
        self.log(|| format!("fault: process {pid} is asked to end"));
        self.invariants.left += 1;
        self.ask_to_end(pid);
    }

    fn add_faulty_client(&mut self) {
        // The first worker defines the data of the run.
        let known = self.disk.split.is_some();
        let kind = match self.between(0, 3) {
            0 if known => Kind::OtherData,
            1 if known => Kind::OtherDevice,
            _ => Kind::Rogue,
        };
        let local_rank = if kind == Kind::Rogue && self.one_in(2) {
            Some(self.between(0, 3) as u32)
        } else {
            None
        };
        self.log(|| format!("fault: {kind:?} joins with local rank {local_rank:?}"));
        self.invariants.misconfigured |= kind != Kind::Rogue;
        self.invariants.extra_clients += 1;
        self.spawn(kind, local_rank, None);
    }

    fn kill_coordinator(&mut self) {
        if self.coordinator.is_none() {
            return;
        }
        self.log(|| "fault: the coordinator is killed".to_owned());
        self.crash();
        self.invariants.interrupted = false;
        let delay = if self.one_in(4) {
            self.between(100, 40_000)
        } else {
            self.between(100, 2_000)
        };
        self.after(delay, Item::Begin);
    }

    fn repeat_old_messages(&mut self) {
        self.log(|| "fault: old messages are delivered again".to_owned());
        for _ in 0..self.between(1, 6) {
            self.repeat_an_old_message();
        }
    }

    pub(super) fn repeat_an_old_message(&mut self) {
        let Some(last) = self.record.len().checked_sub(1) else {
            return;
        };
        // Recent messages are the most likely to be mistaken for new ones.
        let first = if self.one_in(2) {
            last.saturating_sub(12)
        } else {
            0
        };
        let at = self.between(first as u64, last as u64);
        let event = self.record[at as usize].clone();
        self.submit(event);
    }

    /// The links between the workers fail; those to the coordinator do not.
    fn break_group(&mut self) {
        if let Some(pid) = self.pick(|p| p.assignment.is_some())
            && let Some((ring, _)) = self.processes[pid].assignment
        {
            self.log(|| format!("fault: the group of process {pid} breaks"));
            self.break_ring(ring);
        }
    }

    /// The GPU of a worker that has trained fails, and may reset for some seconds.
    fn break_gpu(&mut self) {
        let trains = |p: &super::process::Process| {
            let retained = p.control.retained().retained.map(to_core);
            p.assignment.is_some()
                && p.frozen.is_none()
                && retained.is_some_and(|at| at > Position::start_of(1))
        };
        let Some(pid) = self.pick(trains) else {
            return;
        };
        let until = match self.one_in(2) {
            true => self.now + self.between(1_000, 12_000),
            false => self.now,
        };
        self.log(|| format!("fault: the GPU of process {pid} resets until {until}"));
        self.count("GPUs that failed");
        if let Some(local_rank) = self.processes[pid].local_rank {
            self.resetting.insert(local_rank, until);
        }
        self.end_without_gpu(pid);
    }

    /// The process reports that its GPU failed, and ends.
    fn end_without_gpu(&mut self, pid: usize) {
        self.invariants.gpus_failed = true;
        self.invariants.losses += 1;
        self.up(pid, |worker| Event::Failed {
            worker,
            kind: FailureKind::Device,
            message: "an error of CUDA".to_owned(),
        });
        self.end_process(pid, false);
    }

    /// Ends a process that starts while its GPU resets; whether it has.
    pub(super) fn finds_no_gpu(&mut self, pid: usize) -> bool {
        let local_rank = self.processes[pid].local_rank;
        let until = local_rank.and_then(|local_rank| self.resetting.get(&local_rank));
        let resets = until.is_some_and(|until| *until > self.now);
        if resets && self.processes[pid].kind == Kind::Normal {
            self.log(|| format!("process {pid} finds no GPU"));
            self.count("GPUs that still reset");
            self.end_without_gpu(pid);
            return true;
        }
        false
    }

    /// Records an event that may be delivered again: one that names its generation or position, by
    /// which an old one is recognized.
    pub(super) fn record(&mut self, event: &Event) {
        let unidentified = matches!(
            event,
            Event::Failed { .. } | Event::Draining { .. } | Event::Prepared { .. }
        );
        if !unidentified {
            self.record.push(event.clone());
        }
    }

    /// A client that is not a worker sends an arbitrary message.
    pub(super) fn send_rogue_message(&mut self, sid: usize) {
        let session = &self.sessions[sid];
        let pid = session.pid;
        let (Some(worker), true) = (session.worker, self.processes[pid].alive) else {
            return;
        };
        if self.one_in(6) {
            return self.end_process(pid, false);
        }
        let event = self.rogue_message(worker);
        self.up(pid, |_| event);
        let delay = self.between(1, 1_000);
        self.after(delay, Item::Rogue(sid));
    }

    fn rogue_message(&mut self, worker: WorkerId) -> Event {
        let generation = self.between(0, 3);
        let position = Position {
            epoch: self.between(0, 5) as u32,
            completed: self.between(0, 9) as u32,
        };
        let Position { epoch, completed } = position;
        match self.between(0, 10) {
            0 => Event::Preparing {
                worker,
                done: completed,
            },
            1 => Event::Prepared {
                worker,
                bad: vec![(completed, "arbitrary".to_owned())],
            },
            2 => Event::StoreListening {
                worker,
                generation,
                address: "nowhere:1".to_owned(),
            },
            3 => Event::GroupReady { worker, generation },
            4 => Event::Step {
                worker,
                report: StepReport {
                    generation,
                    epoch,
                    completed,
                    loss_sum: f64::NAN,
                    samples: 7,
                    seconds: -1.0,
                    phases: Phases::default(),
                },
            },
            5 => Event::EpochDone {
                worker,
                report: EpochReport {
                    generation,
                    epoch,
                    loss_sum: 0.0,
                    samples: 3,
                    validation: vec![ValidationSum {
                        chunk: 0,
                        loss_sum: 0.0,
                        correct: 9,
                        samples: 1,
                    }],
                    phases: Phases::default(),
                },
            },
            6 => Event::GenerationAborted {
                worker,
                generation,
                retained: Some(position),
            },
            7 => Event::Finished { worker, generation },
            8 => Event::Failed {
                worker,
                kind: FailureKind::Collective,
                message: "arbitrary".to_owned(),
            },
            9 => Event::Draining { worker },
            _ => Event::Heartbeat {
                worker,
                heartbeat: Heartbeat {
                    generation,
                    position,
                    activity: Activity::DataWait,
                    seconds: f64::NAN,
                },
            },
        }
    }
}
