//! The simulated worker's training thread: it performs the tasks of the worker's own control code.

use worker_control::{Done, Report, Task, TrainError};

use super::cluster::{Blob, Cluster};
use super::lineage::State;
use super::process::{Doing, Late};
use super::ring::{Part, Waited};
use super::wire::event;

pub(super) type Result = std::result::Result<Done<State>, TrainError>;

/// A collective of the thread fails.
pub(super) fn broken() -> Result {
    Err(TrainError::Collective(
        "connection closed by peer".to_owned(),
    ))
}

impl Cluster {
    /// Wakes a thread that waits for its inbox.
    pub(super) fn notify(&mut self, pid: usize) {
        if self.processes[pid].doing == Doing::Idle {
            self.wake_in(pid, 0);
        }
    }

    fn enter_doing(&mut self, pid: usize, doing: Doing) {
        let process = &mut self.processes[pid];
        (process.doing, process.since) = (doing, self.now);
        process.token += 1;
    }

    /// The thread is in `doing` for a random time between these, in milliseconds.
    fn busy(&mut self, pid: usize, doing: Doing, low: u64, high: u64) {
        self.enter_doing(pid, doing);
        if !self.processes[pid].hung {
            let delay = self.between(low, high);
            self.wake_in(pid, delay);
        }
    }

    /// The thread waits for the other ranks of its group.
    pub(super) fn collective(&mut self, pid: usize, doing: Doing, part: Part) {
        self.enter_doing(pid, doing);
        self.enter(pid, part);
    }

    /// What the thread was doing may be done.
    pub(super) fn wake(&mut self, pid: usize) {
        let doing = self.processes[pid].doing;
        if self.processes[pid].hung && doing != Doing::Idle {
            return;
        }
        let blocked = self.processes[pid].is_blocked();
        let result = match doing {
            Doing::Idle => return self.work(pid),
            _ if blocked => match self.look(pid) {
                Waited::NotYet => return,
                Waited::Broken => broken(),
                Waited::Complete => self.complete(pid, doing),
            },
            Doing::Computing => return self.reduce(pid),
            Doing::Fetching => self.fetch(pid),
            Doing::Scanning if self.finds_no_gpu(pid) => return,
            Doing::Scanning => self.scan(pid),
            Doing::Preparing => self.prepare(pid),
            Doing::Validating => self.validate(pid),
            _ => Ok(Done::Plain),
        };
        self.done(pid, result);
    }

    pub(super) fn done(&mut self, pid: usize, result: Result) {
        self.processes[pid].control.done(result);
        self.work(pid);
    }

    /// Performs tasks, until one of them takes time.
    fn work(&mut self, pid: usize) {
        loop {
            self.check_orders(pid);
            let process = &mut self.processes[pid];
            let task = process.control.next(&mut process.inbox);
            process.task = task.clone();
            match task {
                Task::Wait => {
                    if self.processes[pid].doing != Doing::Idle {
                        self.enter_doing(pid, Doing::Idle);
                    }
                    return;
                }
                Task::Scan(_) => return self.busy(pid, Doing::Scanning, 1, 100),
                Task::Prepare(_) => return self.busy(pid, Doing::Preparing, 5, 800),
                Task::Leave => self.leave_ring(pid),
                Task::Rendezvous(assignment) => return self.rendezvous(pid, &assignment),
                Task::Create { pretrained } => {
                    let state = match pretrained {
                        true => State::fresh(),
                        false => State::blank(),
                    };
                    self.processes[pid].control.done(Ok(Done::Created(state)));
                    continue;
                }
                Task::CopyWeights => {
                    let mark = self.state(pid).map_or(0, |state| state.mark);
                    self.processes[pid].control.done(Ok(Done::Copied(mark)));
                    continue;
                }
                Task::LoadCheckpoint(_) => return self.busy(pid, Doing::Fetching, 5, 200),
                Task::Broadcast(assignment) => return self.broadcast(pid, &assignment),
                Task::Step { plan, index } => {
                    self.processes[pid].step = Some((plan, index));
                    return self.busy(pid, Doing::Computing, 3, 60);
                }
                Task::AverageBatchNorm => {
                    let at = self.processes[pid].place.1;
                    return self.collective(pid, Doing::Averaging, Part::Average(at));
                }
                Task::Settle => {
                    let result = self.settle(pid);
                    self.processes[pid].control.done(result);
                    continue;
                }
                Task::Validate { .. } => return self.busy(pid, Doing::Validating, 1, 40),
                Task::Upload(what) => self.save(pid, what),
                Task::Predict(_) => {
                    self.upload(pid, Blob::Predictions);
                    return self.busy(pid, Doing::Predicting, 1, 100);
                }
                // "Finished" promises that every upload has arrived: the session delays it.
                Task::Report(report @ Report::Finished { .. })
                    if self.processes[pid].uploads > 0 =>
                {
                    self.processes[pid].finished = Some(report);
                }
                Task::Report(report) => self.report(pid, report),
                Task::End(Ok(())) => return self.end_if_settled(pid),
                Task::End(Err(error)) => self.fail(
                    "a training thread can carry out its orders",
                    &format!("process {pid}: {error}"),
                ),
            }
            self.processes[pid].control.done(Ok(Done::Plain));
        }
    }

    fn report(&mut self, pid: usize, report: Report) {
        if let Report::EpochDone(report) = &report {
            self.check_validated(pid, report);
        }
        if self.processes[pid].link.is_some() {
            self.up(pid, |worker| event(worker, report));
        }
    }

    /// An upload has arrived.
    pub(super) fn settled(&mut self, pid: usize) {
        if self.processes[pid].uploads > 0 {
            return;
        }
        if let Some(report) = self.processes[pid].finished.take() {
            self.report(pid, report);
        }
        if self.processes[pid].doing == Doing::Uploading {
            self.end_process(pid, false);
        }
    }

    /// A process that is over ends when its uploads have arrived.
    fn end_if_settled(&mut self, pid: usize) {
        if self.processes[pid].uploads > 0 {
            return self.enter_doing(pid, Doing::Uploading);
        }
        self.end_process(pid, false);
    }

    fn leave_ring(&mut self, pid: usize) {
        let process = &mut self.processes[pid];
        process.step = None;
        process.late = Late::default();
        process.waits_for = None;
        if let Some((ring, _)) = process.assignment.take() {
            self.break_ring(ring);
        }
    }

    /// The session aborts the collectives of its thread.
    pub(super) fn abort(&mut self, pid: usize) {
        if let Some((ring, _)) = self.processes[pid].assignment {
            self.break_ring(ring);
        }
        if self.processes[pid].is_blocked() {
            let delay = self.between(0, 100);
            self.wake_in(pid, delay);
        }
    }
}
