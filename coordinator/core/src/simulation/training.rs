//! The steps and the validation of a simulated worker.

use super::cluster::Cluster;
use super::process::{Doing, Order};
use super::ring::Part;
use crate::Command;
use crate::event::{EpochReport, Event, Phases, SaveState, StepReport, ValidationSum};

impl Cluster {
    pub(super) fn may_step(&mut self, pid: usize) {
        let process = &mut self.processes[pid];
        let Some(plan) = &process.plan else {
            return self.idle(pid);
        };
        if plan.next >= plan.shard.local_counts.len() {
            return self.end_of_epoch(pid);
        }
        match process.orders.front() {
            Some(Order::Do(Command::SaveState(SaveState::Checkpoint))) => {
                process.orders.pop_front();
                self.keep(pid, SaveState::Checkpoint);
                return self.may_step(pid);
            }
            // A run that was told to stop does not end its epoch.
            Some(Order::Do(Command::SaveState(_))) if self.invariants.stopping => {
                process.plan = None;
                return self.idle(pid);
            }
            Some(Order::Do(
                Command::SaveState(_) | Command::Plan { .. } | Command::Assign { .. },
            )) => self.fail(
                "no rank gets another order in the middle of an epoch",
                &format!("process {pid}: {:?}", self.processes[pid].orders),
            ),
            Some(_) => {
                process.plan = None;
                return self.idle(pid);
            }
            None => {}
        }
        let completed = process.state.as_ref().map_or(0, |s| s.position.completed);
        if completed >= process.grant.2 {
            if process.doing != Doing::Parked {
                self.enter_doing(pid, Doing::Parked);
            }
            return;
        }
        self.busy(pid, Doing::Computing, 3, 60);
    }

    pub(super) fn reduce(&mut self, pid: usize) {
        let process = &self.processes[pid];
        let (Some(plan), Some(state)) = (&process.plan, &process.state) else {
            return self.idle(pid);
        };
        let count = plan.shard.local_counts[plan.next] as usize;
        let samples = plan.shard.samples[plan.offset..plan.offset + count].to_vec();
        if !self.can_read(pid, &samples) {
            self.fail(
                "a worker trains on what is decoded",
                &format!("process {pid} has not all of {samples:?}"),
            );
        }
        let part = Part::Step(state.position, state.mark, samples);
        self.enter_doing(pid, Doing::Reducing);
        self.enter(pid, part);
    }

    pub(super) fn stepped(&mut self, pid: usize) {
        let Some((ring, _)) = self.processes[pid].assignment else {
            return self.idle(pid);
        };
        let all = self.rings[ring].reduced.clone();
        let process = &mut self.processes[pid];
        let (Some(plan), Some(state)) = (&mut process.plan, &mut process.state) else {
            return self.idle(pid);
        };
        let count = plan.shard.local_counts[plan.next];
        plan.next += 1;
        plan.offset += count as usize;
        state.apply(&all);
        let (state, position) = (state.clone(), state.position);
        process.place.1 = position;
        let (generation, epoch) = (plan.generation, plan.epoch);
        self.check_state(&state);
        let poisoned = self.scenario.reference.is_poisoned(position);
        let report = StepReport {
            generation,
            epoch,
            completed: position.completed,
            loss_sum: if poisoned { f64::NAN } else { count.into() },
            samples: count,
            seconds: 0.05,
            phases: Phases::default(),
        };
        self.up(pid, |worker| Event::Step { worker, report });
        self.enter_doing(pid, Doing::Parked);
        self.may_step(pid);
    }

    pub(super) fn end_of_epoch(&mut self, pid: usize) {
        let position = self.processes[pid].place.1;
        if self.scenario.averages {
            self.enter_doing(pid, Doing::Averaging);
            return self.enter(pid, Part::Average(position));
        }
        self.validate(pid);
    }

    pub(super) fn validate(&mut self, pid: usize) {
        self.busy(pid, Doing::Validating, 3, 80);
    }

    pub(super) fn validated(&mut self, pid: usize) {
        let process = &mut self.processes[pid];
        let (Some(plan), Some(state)) = (process.plan.take(), process.state.clone()) else {
            return self.idle(pid);
        };
        let loss = self.scenario.reference.loss(&state);
        let validation = plan.chunks.iter().map(|chunk| ValidationSum {
            chunk: chunk.index,
            loss_sum: loss * chunk.samples.len() as f64,
            correct: 0,
            samples: chunk.samples.len() as u32,
        });
        let report = EpochReport {
            generation: plan.generation,
            epoch: plan.epoch,
            loss_sum: loss,
            samples: plan.shard.samples.len() as u32,
            validation: validation.collect(),
            phases: Phases::default(),
        };
        let complete = state.position.completed == self.scenario.reference.steps;
        if !complete || state.position.epoch != plan.epoch {
            self.fail("a whole epoch is validated", &format!("{state:?}"));
        }
        self.up(pid, |worker| Event::EpochDone { worker, report });
        self.idle(pid);
    }
}
