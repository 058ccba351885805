//! The tasks of a simulated worker: what a real one does with images, sockets and tensors.

use std::collections::BTreeSet;

use worker_control::{
    self as worker, Done, EpochPlan, RetainedState, SaveState, Task, ValidationSum,
};

use super::cluster::{Blob, Cluster};
use super::lineage::State;
use super::process::{Cache, Doing, Kind};
use super::ring::{Part, Ring};
use super::thread::{Result, broken};
use super::wire::{to_core, to_worker};
use crate::event::{Event, Processors, Scan};

impl Cluster {
    pub(super) fn scan(&mut self, pid: usize) -> Result {
        let Task::Scan(memory) = self.processes[pid].task else {
            return Ok(Done::Plain);
        };
        let RetainedState {
            prepared,
            retained,
            best,
        } = memory;
        let kind = self.processes[pid].kind;
        let other = kind == Kind::OtherData;
        let scan = Scan {
            fingerprint: if other { "other" } else { "same" }.to_owned(),
            classes: vec!["a".to_owned()],
            files: self.scenario.files[usize::from(other)..].to_vec(),
            device: match kind {
                Kind::OtherDevice => "cuda:0",
                _ => "cpu",
            }
            .to_owned(),
            native_bf16: false,
            gpu_uuid: String::new(),
            processors: Processors::default(),
            memory: crate::event::RetainedState {
                prepared,
                retained: retained.map(to_core),
                best,
            },
            warnings: Vec::new(),
        };
        if self.processes[pid].link.is_some() {
            self.up(pid, |worker| Event::Scanned { worker, scan });
        }
        Ok(Done::Plain)
    }

    pub(super) fn prepare(&mut self, pid: usize) -> Result {
        let Task::Prepare(order) = self.processes[pid].task.clone() else {
            return Ok(Done::Plain);
        };
        let is_bad = |sample: &u32| self.scenario.bad.contains(sample);
        let (bad, cached): (Vec<u32>, Vec<u32>) = order.samples.into_iter().partition(is_bad);
        let bad = bad.into_iter().map(|sample| worker::BadFile {
            sample,
            reason: "truncated".to_owned(),
        });
        let done = Done::Prepared(bad.collect());
        let shared = order.cache_file.and(self.processes[pid].session);
        self.processes[pid].cache = Some(match shared {
            Some(sid) => {
                let of = self.sessions[sid].incarnation;
                self.shared_caches.entry(of).or_default().extend(cached);
                Cache::Shared(of)
            }
            None => Cache::Own(cached.into_iter().collect::<BTreeSet<u32>>()),
        });
        Ok(done)
    }

    /// Rank 0 opens a ring; the others find it by its number.
    pub(super) fn rendezvous(&mut self, pid: usize, assignment: &worker::Assignment) {
        let generation = assignment.generation;
        let store = assignment.store.as_deref();
        let ring = store.and_then(|address| address.rsplit_once(':')?.1.parse().ok());
        let ring = ring.unwrap_or_else(|| {
            let of = self.processes[pid].session;
            let incarnation = of.map_or(0, |sid| self.sessions[sid].incarnation);
            let ring = Ring::new(incarnation, generation, assignment.world_size);
            self.rings.push(ring);
            let ring = self.rings.len() - 1;
            let address = format!("host:{ring}");
            self.up(pid, |worker| Event::StoreListening {
                worker,
                generation,
                address,
            });
            ring
        });
        let process = &mut self.processes[pid];
        process.place = (generation, to_core(assignment.position));
        process.assignment = Some((ring, assignment.rank));
        // A group that is opened after an order to leave is aborted at once.
        if process.inbox.is_cancelled() {
            return self.done(pid, broken());
        }
        self.collective(pid, Doing::Rendezvous, Part::Rendezvous);
    }

    pub(super) fn fetch(&mut self, pid: usize) -> Result {
        let at = self.processes[pid].place.1;
        let connected = self.processes[pid].session.is_some();
        let found = self.disk.checkpoints.get(&at).cloned();
        match (found.filter(|_| connected), &mut self.processes[pid]) {
            (Some(checkpoint), process) => {
                if let Some(state) = process.control.state_mut() {
                    *state = checkpoint;
                }
                Ok(Done::Plain)
            }
            (None, _) => {
                if connected && !self.disk.was_corrupt {
                    self.fail("the checkpoint of a generation exists", &at.to_string());
                }
                broken()
            }
        }
    }

    pub(super) fn broadcast(&mut self, pid: usize, assignment: &worker::Assignment) {
        let source = assignment.rank == assignment.source;
        let state = self.state(pid).filter(|_| source).cloned();
        if let Some(state) = &state {
            self.check_usable(state);
            if to_worker(state.position) != assignment.position {
                self.fail(
                    "a generation begins at the position of its state",
                    &format!("{assignment:?}, not with {state:?}"),
                );
            }
        }
        self.collective(pid, Doing::Broadcasting, Part::Broadcast(state));
    }

    /// A collective has completed.
    pub(super) fn complete(&mut self, pid: usize, doing: Doing) -> Result {
        let Some((ring, _)) = self.processes[pid].assignment else {
            return broken();
        };
        match doing {
            Doing::Broadcasting => {
                let shared = self.rings[ring].shared.clone();
                let state = self.processes[pid].control.state_mut();
                if let (Some(state), Some(shared)) = (state, shared) {
                    *state = shared;
                }
                Ok(Done::Plain)
            }
            Doing::Reducing => Ok(self.commit(pid, ring)),
            _ => Ok(Done::Plain),
        }
    }

    /// The rank has its gradients, and reduces them with the others.
    pub(super) fn reduce(&mut self, pid: usize) {
        let Some((plan, index)) = self.processes[pid].step.clone() else {
            return;
        };
        let samples = local_samples(&plan, index).to_vec();
        if !self.can_read(pid, &samples) {
            self.fail(
                "a worker trains on what is decoded",
                &format!("process {pid} has not all of {samples:?}"),
            );
        }
        let begins = to_core(worker::Position {
            epoch: plan.epoch,
            completed: plan.completed + index as u32,
        });
        let at = self.state(pid).map(|state| state.position);
        if at != Some(begins) {
            self.fail(
                "a step begins where the state is",
                &format!("process {pid} at {at:?}, not at {begins}"),
            );
        }
        let Some(state) = self.processes[pid].control.state_mut() else {
            return;
        };
        state.in_step = true;
        let part = Part::Step(state.position, state.mark, samples);
        self.collective(pid, Doing::Reducing, part);
    }

    /// All gradients are reduced: the state makes its step.
    pub(super) fn commit(&mut self, pid: usize, ring: usize) -> Done<State> {
        let all = self.rings[ring].reduced.clone();
        if let Some(state) = self.processes[pid].control.state_mut() {
            state.apply(&all);
        }
        let Some(mut state) = self.state(pid).cloned() else {
            return Done::Plain;
        };
        self.check_state(&state);
        state.loss_sum = self.scenario.reference.loss(&state);
        let nan_loss = self.scenario.reference.has_nan_loss(state.position);
        let process = &mut self.processes[pid];
        process.place.1 = state.position;
        if let Some(trained) = process.control.state_mut() {
            trained.loss_sum = state.loss_sum;
        }
        let samples = process.step.as_mut().map_or(0, |(plan, index)| {
            *index += 1;
            plan.local_counts[*index - 1]
        });
        let result = worker::Stepped {
            loss_sum: if nan_loss { f64::NAN } else { samples.into() },
            seconds: 0.05,
            phases: worker::Phases::default(),
        };
        let late = &mut self.processes[pid].late.steps;
        late.push(result);
        // A device returns the result of a step while it works on the next.
        let behind = usize::from(self.scenario.results_come_late);
        Done::Stepped(late.drain(..late.len() - behind).collect())
    }

    /// All results that are still to come.
    pub(super) fn settle(&mut self, pid: usize) -> Result {
        let late = std::mem::take(&mut self.processes[pid].late);
        Ok(match late.steps.is_empty() {
            false => Done::Stepped(late.steps),
            true => Done::Validated {
                sums: late.sums,
                seconds: 0.0,
            },
        })
    }

    pub(super) fn validate(&mut self, pid: usize) -> Result {
        let Task::Validate { plan, index } = self.processes[pid].task.clone() else {
            return Ok(Done::Plain);
        };
        let loss = self
            .state(pid)
            .map(|state| self.scenario.reference.loss(state));
        let chunk = &plan.validation[index];
        let samples = chunk.samples.len() as u32;
        let sum = ValidationSum {
            chunk: chunk.chunk,
            loss_sum: loss.unwrap_or(f64::NAN) * f64::from(samples),
            correct: 0,
            samples,
        };
        let late = &mut self.processes[pid].late.sums;
        late.push(sum);
        let sums = match self.scenario.results_come_late {
            true => Vec::new(),
            false => std::mem::take(late),
        };
        Ok(Done::Validated {
            sums,
            seconds: 0.05,
        })
    }

    pub(super) fn save(&mut self, pid: usize, what: SaveState) {
        let control = &self.processes[pid].control;
        let blob = match (what, control.best(), control.state()) {
            (SaveState::Best(epoch), Some(best), _) => Blob::Best(epoch, best.weights),
            (SaveState::Checkpoint, _, Some(state)) => Blob::Checkpoint(state.clone()),
            _ => self.fail(
                "a worker is asked only for a state that it has",
                &format!("process {pid} for {what:?}"),
            ),
        };
        if let Blob::Checkpoint(state) = &blob {
            self.check_usable(state);
        }
        self.upload(pid, blob);
    }

    /// The state of a process, as it is.
    pub(super) fn state(&self, pid: usize) -> Option<&State> {
        self.processes[pid].control.state()
    }
}

/// The samples of one step of a plan.
fn local_samples(plan: &EpochPlan, index: usize) -> &[u32] {
    let before: u32 = plan.local_counts[..index].iter().sum();
    let count = plan.local_counts[index];
    &plan.samples[before as usize..(before + count) as usize]
}
