//! What is durable in the simulation, and the recorder that writes it: records one after the other,
//! and beside them large files one after the other. A crash loses the rest.

use std::collections::{BTreeMap, VecDeque};

use super::cluster::{Blob, Cluster, Item};
use super::lineage::State;
use crate::event::{Event, Position, WorkerId};
use crate::run::Resumed;

/// Checkpoints that stay.
const KEEP: usize = 2;

#[derive(Default)]
pub(super) struct Disk {
    /// Training and validation paths.
    pub(super) split: Option<(Vec<String>, Vec<String>)>,
    pub(super) validation_losses: Vec<f64>,
    pub(super) generation: u64,
    /// Epoch and mark of the best weights.
    pub(super) best: Option<(u32, u64)>,
    /// The valid ones.
    pub(super) checkpoints: BTreeMap<Position, State>,
    pub(super) was_corrupt: bool,
}

/// What the recorder is to do.
pub(super) enum Job {
    Split(Vec<String>, Vec<String>),
    /// The validation loss of an epoch, and the generation that made it.
    Epoch(f64, u64),
    /// The run went back to this position.
    RollBack(Position),
    Best(u32, u64),
    Checkpoint(State),
    Find,
}

impl Job {
    fn is_large_file(&self) -> bool {
        matches!(self, Self::Best(..) | Self::Checkpoint(_))
    }

    /// It begins when all large files before it are durable.
    fn waits_for_files(&self) -> bool {
        matches!(self, Self::RollBack(_) | Self::Find)
    }
}

/// One of the recorder's threads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Records,
    LargeFiles,
}

/// What the recorder has not written yet.
#[derive(Default)]
pub(super) struct Jobs {
    /// In the order in which they came, with the large files that are not handed over yet.
    records: VecDeque<Job>,
    files: VecDeque<Job>,
    /// Whether a thread is writing the first of its jobs.
    records_busy: bool,
    files_busy: bool,
}

impl Jobs {
    /// Hands over the large files whose turn it is, and gives the threads that begin a job.
    fn begin(&mut self) -> Vec<Writer> {
        while !self.records_busy
            && let Some(job) = self.records.pop_front_if(|job| job.is_large_file())
        {
            self.files.push_back(job);
        }
        let mut begin = Vec::new();
        if !self.files_busy && !self.files.is_empty() {
            self.files_busy = true;
            begin.push(Writer::LargeFiles);
        }
        let ready = |job: &Job| !job.waits_for_files() || self.files.is_empty();
        if !self.records_busy && self.records.front().is_some_and(ready) {
            self.records_busy = true;
            begin.push(Writer::Records);
        }
        begin
    }

    /// What a thread has written.
    fn end(&mut self, writer: Writer) -> Option<Job> {
        let (busy, jobs) = match writer {
            Writer::Records => (&mut self.records_busy, &mut self.records),
            Writer::LargeFiles => (&mut self.files_busy, &mut self.files),
        };
        *busy = false;
        jobs.pop_front()
    }

    /// All that is left. Large files come first, since records may wait for them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Job> + use<> {
        let Self { records, files, .. } = std::mem::take(self);
        files.into_iter().chain(records)
    }

    /// The jobs in progress.
    pub(super) fn in_progress(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        if self.files_busy {
            jobs.extend(self.end(Writer::LargeFiles));
        }
        if self.records_busy {
            jobs.extend(self.end(Writer::Records));
        }
        jobs
    }
}

impl Disk {
    pub(super) fn newest(&self) -> Option<Position> {
        self.checkpoints.keys().next_back().copied()
    }

    pub(super) fn resumed(&self) -> Option<Resumed> {
        let (train, validation) = self.split.clone()?;
        Some(Resumed {
            fingerprint: "same".to_owned(),
            train,
            validation,
            validation_losses: self.validation_losses.clone(),
            best_epoch: self.best.map(|(epoch, _)| epoch),
            checkpoint: self.newest(),
            generation: self.generation,
        })
    }
}

impl Cluster {
    /// The coordinator has received a blob: one that it does not wait for is dropped.
    pub(super) fn receive(&mut self, sid: usize, blob: Blob) {
        let session = &self.sessions[sid];
        let pid = session.pid;
        let alive = self.processes[pid].alive && self.processes[pid].session == Some(sid);
        if session.cut || !alive || Some(session.incarnation) != self.incarnation() {
            return;
        }
        let (Some(worker), Some(coordinator)) = (session.worker, &self.coordinator) else {
            return;
        };
        let job = match blob {
            Blob::Best(epoch, mark) if coordinator.run.awaits_best(worker, epoch) => {
                Some(Job::Best(epoch, mark))
            }
            Blob::Checkpoint(state) if coordinator.run.awaits_checkpoint(worker) => {
                Some(Job::Checkpoint(state))
            }
            _ => None,
        };
        self.log(|| format!("a blob of {worker} arrives, wanted: {}", job.is_some()));
        self.processes[pid].uploads -= 1;
        if let Some(job) = job {
            self.order(job);
        }
        self.settled(pid);
    }

    pub(super) fn order(&mut self, job: Job) {
        self.jobs.records.push_back(job);
        self.begin_writing();
    }

    fn begin_writing(&mut self) {
        for writer in self.jobs.begin() {
            let delay = match self.between(0, 19) {
                // A disk that hangs for longer than an epoch takes.
                0 => self.between(0, 2_000),
                1..6 => self.between(0, 500),
                _ => self.between(0, 60),
            };
            self.after(delay, Item::Written(self.incarnations, writer));
        }
    }

    pub(super) fn written(&mut self, incarnation: u32, writer: Writer) {
        if Some(incarnation) != self.incarnation() {
            return;
        }
        let Some(job) = self.jobs.end(writer) else {
            return;
        };
        let answer = self.write(job);
        self.begin_writing();
        if let Some(event) = answer {
            let delay = self.between(0, 20);
            self.last_answer_at = self.last_answer_at.max(self.now + delay);
            self.at(self.last_answer_at, Item::Local(incarnation, event));
        }
    }

    /// Writes what is left, as at the end of a run.
    pub(super) fn flush(&mut self) {
        for job in self.jobs.take() {
            self.write(job);
        }
    }

    /// Makes one thing durable; the answer is what the core waits for.
    pub(super) fn write(&mut self, job: Job) -> Option<Event> {
        Some(match job {
            Job::Split(train, validation) => {
                self.disk.split = Some((train, validation));
                return None;
            }
            Job::Epoch(loss, generation) => {
                self.disk.validation_losses.push(loss);
                self.disk.generation = generation;
                return None;
            }
            Job::RollBack(position) => {
                self.disk.checkpoints.retain(|at, _| *at <= position);
                self.disk
                    .validation_losses
                    .truncate(position.epoch as usize - 1);
                return None;
            }
            Job::Best(epoch, mark) => {
                self.disk.best = Some((epoch, mark));
                Event::BestStored { epoch }
            }
            Job::Checkpoint(state) => {
                let position = state.position;
                self.disk.checkpoints.insert(position, state);
                while self.disk.checkpoints.len() > KEEP {
                    self.disk.checkpoints.pop_first();
                }
                Event::CheckpointStored { position }
            }
            Job::Find => Event::CheckpointFound {
                position: self.disk.newest(),
            },
        })
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.sessions.remove(&worker);
        }
    }
}
