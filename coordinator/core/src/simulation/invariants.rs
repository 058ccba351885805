//! The invariants, which must hold after every event, whatever the faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use worker_control::{EpochPlan, EpochReport, Order, SaveState};

use super::cluster::Cluster;
use super::lineage::{Reference, State};
use super::process::Doing;
use super::wire::to_core;
use crate::early_stopping::Standing;
use crate::event::{Fact, FinishedEpoch, Origin, Position};
use crate::{Action, Command, Event};

/// The history that the invariants depend on.
#[derive(Default)]
pub(super) struct Invariants {
    pub(super) interrupted: bool,
    /// The coordinator is about to end the run, at any step.
    pub(super) stopping: bool,
    pub(super) early_crash: bool,
    /// Workers that were killed, cut off, or stopped.
    pub(super) losses: u32,
    /// A GPU has failed.
    pub(super) gpus_failed: bool,
    /// Workers that were asked to end.
    pub(super) left: u32,
    /// There were workers with other data, or another device.
    pub(super) misconfigured: bool,
    /// Clients that count against the maximum of workers.
    pub(super) extra_clients: u32,
    /// Rank 0 of each generation.
    leaders: BTreeMap<(u32, u64), crate::WorkerId>,
    newest: (u32, u64),
    /// The newest checkpoint of which the coordinator knows.
    known: Option<Position>,
    /// Most that was granted in a generation.
    granted: BTreeMap<(u32, u64, u32), u32>,
}

impl Cluster {
    pub(super) fn reset_invariants(&mut self) {
        self.invariants.known = self.disk.newest();
        self.invariants.stopping = false;
        self.invariants.newest = (self.incarnations, 0);
        self.record.clear();
    }

    /// All ranks have given their part of a step.
    pub(super) fn check_step(
        &mut self,
        of: (u32, u64),
        ranks: &[usize],
        at: Position,
        samples: &[u32],
    ) {
        // Workers whose sessions broke may still make steps, until they notice; but no worker that
        // the coordinator has in a newer generation.
        let newer = of.0 == self.invariants.newest.0 && of != self.invariants.newest;
        if newer && ranks.iter().any(|pid| self.is_member(*pid)) {
            self.fail(
                "one generation is live at a time",
                &format!(
                    "{of:?} makes a step, but {:?} has begun",
                    self.invariants.newest
                ),
            );
        }
        let batches = self.scenario.reference.batches.get(at.epoch as usize - 1);
        let expected = batches.and_then(|epoch| epoch.get(at.completed as usize));
        if expected.map(Vec::as_slice) != Some(samples) {
            self.fail(
                "the samples of a step do not depend on the world",
                &format!("after {at} came {samples:?} and not {expected:?}"),
            );
        }
        let key = (of.0, of.1, at.epoch);
        if self
            .invariants
            .granted
            .get(&key)
            .is_none_or(|most| at.completed >= *most)
        {
            self.fail("no step runs without a grant", &at.to_string());
        }
    }

    /// A state that goes to other ranks or into a file.
    pub(super) fn check_usable(&self, state: &State) {
        // None after the last epoch, of which a stopped run may still make a checkpoint.
        let expected = self.scenario.reference.mark(state.position);
        let wrong = expected.unwrap_or(state.mark) != state.mark;
        if state.in_step || wrong || state.mark == State::blank().mark {
            self.fail(
                "only complete steps are handed on",
                &format!("in a step: {}, {state:?}", state.in_step),
            );
        }
    }

    /// Orders that the core must not send to a rank in the middle of an epoch.
    pub(super) fn check_orders(&self, pid: usize) {
        let process = &self.processes[pid];
        let within = |(plan, next): &(Arc<EpochPlan>, usize)| *next < plan.local_counts.len();
        if !process.step.as_ref().is_some_and(within) {
            return;
        }
        let wrong = match process.inbox.orders().next() {
            Some(Order::Plan(_) | Order::Assign(_)) => true,
            // A run that was interrupted does not end its epoch.
            Some(Order::SaveState(SaveState::Best(_))) => !self.invariants.stopping,
            _ => false,
        };
        if wrong {
            self.fail(
                "no rank gets another order in the middle of an epoch",
                &format!("process {pid}: {:?}", process.inbox),
            );
        }
    }

    pub(super) fn check_validated(&self, pid: usize, report: &EpochReport) {
        let complete = self.state(pid).is_some_and(|state| {
            let steps = self.scenario.reference.steps;
            (state.position.epoch, state.position.completed) == (report.epoch, steps)
        });
        if !complete {
            self.fail(
                "a whole epoch is validated",
                &format!("{report:?} of {:?}", self.state(pid)),
            );
        }
    }

    /// A state has come a step further.
    pub(super) fn check_state(&self, state: &State) {
        if self.scenario.reference.mark(state.position) != Some(state.mark) {
            self.fail(
                "every step is committed exactly once",
                &format!("{state:?}"),
            );
        }
    }

    /// Validation losses of the epochs that the coordinator has completed.
    fn completed_losses(&self) -> &[f64] {
        self.coordinator
            .as_ref()
            .map_or(&[], |coordinator| &coordinator.validation_losses)
    }

    /// Checks the core's actions before they are performed.
    pub(super) fn check_actions(&mut self, actions: &[Action]) {
        if let Some(end) = actions.iter().position(|a| matches!(a, Action::End(_)))
            && end + 1 < actions.len()
        {
            self.fail("nothing follows the end", &format!("{actions:?}"));
        }
        let validation_losses = self.completed_losses().to_vec();
        let mut rolled_back = false;
        for action in actions {
            match action {
                Action::Notify(Fact::RolledBack { .. }) => rolled_back = true,
                Action::Notify(Fact::Stopping(_)) => self.invariants.stopping = true,
                Action::Send(
                    worker,
                    Command::Assign {
                        generation,
                        rank: 0,
                        store: None,
                        position,
                        origin,
                        ..
                    },
                ) => {
                    self.count(match origin {
                        Origin::Fresh => "generations from the beginning",
                        Origin::Retained => "generations from a retained state",
                        Origin::Checkpoint => "generations from a checkpoint",
                    });
                    let key = (self.incarnations, *generation);
                    let former = self.invariants.leaders.insert(key, *worker);
                    if former.is_some() || key <= self.invariants.newest {
                        self.fail("a generation has one leader", &format!("{key:?}"));
                    }
                    self.invariants.newest = key;
                    self.check_start(*position, &validation_losses, rolled_back);
                }
                Action::Send(
                    _,
                    Command::Plan {
                        generation,
                        epoch,
                        granted,
                        ..
                    }
                    | Command::Grant {
                        generation,
                        epoch,
                        granted,
                    },
                ) => {
                    let key = (self.incarnations, *generation, *epoch);
                    let most = self.invariants.granted.entry(key).or_default();
                    *most = (*most).max(*granted);
                    if *granted > self.scenario.reference.steps {
                        self.fail("no more steps are granted than there are", "");
                    }
                }
                _ => {}
            }
        }
    }

    /// Records what the core knows to be durable.
    pub(super) fn note_durable(&mut self, event: &Event) {
        match event {
            Event::CheckpointStored { position } => {
                self.invariants.known = self.invariants.known.max(Some(*position));
            }
            Event::CheckpointFound { position } => self.invariants.known = *position,
            _ => {}
        }
    }

    /// A generation begins at the furthest state from which the run can have the expected result.
    fn check_start(&self, position: Position, validation_losses: &[f64], rolled_back: bool) {
        let steps = self.scenario.reference.steps;
        let known = validation_losses.len() as u32;
        let best = Reference::replay(&self.scenario.recipe, validation_losses).best();
        let Some(coordinator) = &self.coordinator else {
            return;
        };
        let workers = coordinator.sessions.iter().filter_map(|(worker, sid)| {
            let session = &self.sessions[*sid];
            let process = &self.processes[session.pid];
            let there = session.scanned
                && session.prepared
                && !session.cut
                && process.alive
                && !process.is_draining()
                && process.session == Some(*sid)
                && process.doing == Doing::Idle
                && process.assignment.is_none()
                && coordinator.run.is_member(*worker);
            there.then_some(process)
        });
        let workers: Vec<_> = workers.collect();
        let missing = best.filter(|best| {
            let stored = self.disk.best.is_some_and(|(epoch, _)| epoch >= best.epoch);
            let retained = |epoch: u32| epoch == best.epoch;
            !stored
                && !workers
                    .iter()
                    .any(|p| p.control.retained().best.is_some_and(retained))
        });
        let whole = |epoch| Position {
            epoch,
            completed: steps,
        };
        let usable = |at: &Position| missing.is_none_or(|best| *at <= whole(best.epoch));
        let retained = workers.iter().filter_map(|process| {
            let at = to_core(process.control.retained().retained?);
            let validation_losses = missing.is_none() && at.epoch <= known && at.completed == steps;
            Some(if validation_losses {
                Position::start_of(at.epoch + 1)
            } else {
                at
            })
        });
        let past = |at: &Position| at.epoch <= known + 1;
        let stored = self.disk.checkpoints.keys().copied();
        let stored = stored.filter(|at| Some(*at) <= self.invariants.known);
        let furthest = retained.chain(stored).filter(past).filter(usable).max();
        if furthest.is_some_and(|furthest| position < furthest) {
            self.fail(
                "no state is lost that a worker or the run directory has",
                &format!("it continues from {position}, not from {furthest:?}"),
            );
        }
        if position.epoch <= known && !rolled_back {
            self.fail("early stopping is reset only by a rollback", "");
        }
    }

    pub(super) fn check_epoch(&self, summary: &FinishedEpoch, told: Standing) {
        let validation_losses = self.completed_losses();
        if summary.epoch as usize != validation_losses.len() + 1 {
            self.fail("each epoch is completed once", &format!("{summary:?}"));
        }
        let expected = self
            .scenario
            .reference
            .validation_losses
            .get(validation_losses.len());
        if expected.map(|loss| loss.to_bits()) != Some(summary.validation_loss.to_bits())
            && expected.is_none_or(|loss| !loss.is_nan() || !summary.validation_loss.is_nan())
        {
            self.fail(
                "an epoch has the result of a run without faults",
                &format!("{expected:?}, but {summary:?}"),
            );
        }
        let tiled = summary.ledger.iter().try_fold(0, |at, span| {
            (span.first == at && span.end >= at).then_some(span.end)
        });
        if tiled != Some(self.scenario.reference.steps) {
            self.fail("the ledger holds each step once", &format!("{summary:?}"));
        }
        let mut losses = validation_losses.to_vec();
        losses.push(summary.validation_loss);
        let stopping = Reference::replay(&self.scenario.recipe, &losses).standing();
        if stopping != told {
            self.fail("early stopping counts every epoch", &format!("{summary:?}"));
        }
    }

    /// Whether a process has a working session with the current coordinator, as a member.
    pub(super) fn is_member(&self, pid: usize) -> bool {
        let process = &self.processes[pid];
        let worker = process.session.and_then(|sid| {
            let session = &self.sessions[sid];
            let current = Some(session.incarnation) == self.incarnation();
            session.worker.filter(|_| current && !session.cut)
        });
        let member = |worker| {
            let coordinator = self.coordinator.as_ref();
            coordinator.is_some_and(|c| c.run.is_member(worker))
        };
        process.alive && worker.is_some_and(member)
    }
}
