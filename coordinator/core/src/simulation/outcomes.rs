//! The invariants of the end of a run: it has the result of the reference, or fails for a valid
//! reason, and its results are durable.

use super::cluster::Cluster;
use super::lineage::Reference;
use super::wire::to_core;
use crate::Outcome;
use crate::event::{EnvironmentError, Position, RunError, StopReason};

impl Cluster {
    pub(super) fn check_end(&self, outcome: &Outcome) {
        let name = "a run has the expected result";
        match outcome {
            Ok(StopReason::Interrupted) if self.invariants.interrupted => self.check_resumable(),
            Ok(reason) => {
                let reference = &self.scenario.reference;
                let validation_losses = self.disk.validation_losses.len();
                let whole = validation_losses == reference.validation_losses.len()
                    || *reason == StopReason::NonFiniteLoss
                        && validation_losses + 1 == reference.validation_losses.len();
                if *reason != reference.reason || !whole {
                    self.fail(
                        name,
                        &format!("{reason:?} after {validation_losses} epochs: {reference:?}"),
                    );
                }
            }
            Err(error) => self.check_failure(error),
        }
        if outcome.is_ok() {
            self.check_best();
        }
    }

    /// The stored weights are those of the best epoch; or of one after all completed
    /// ones, if a stopped run has not made that epoch again yet.
    fn check_best(&self) {
        let best = Reference::replay(&self.scenario.recipe, &self.disk.validation_losses).best();
        let Some(best) = best else {
            return;
        };
        let steps = self.scenario.reference.steps;
        let right = self.disk.best.is_some_and(|(epoch, mark)| {
            let whole = Position {
                epoch,
                completed: steps,
            };
            let again = epoch as usize > self.disk.validation_losses.len();
            (epoch == best.epoch || again) && self.scenario.reference.mark(whole) == Some(mark)
        });
        if !right {
            self.fail(
                "the best weights are stored when a run is over",
                &format!("{best:?}, but {:?}", self.disk.best),
            );
        }
    }

    /// A stopped run has a checkpoint of the furthest state that a connected worker retains. The
    /// grace period is longer than any action here takes that does not hang.
    fn check_resumable(&self) {
        let steps = self.scenario.reference.steps;
        let validation_losses = self.disk.validation_losses.len() as u32;
        let normal = |at: Position| match at.epoch <= validation_losses && at.completed >= steps {
            true => Position::start_of(at.epoch + 1),
            false => at,
        };
        let newest = self.disk.newest().map(normal);
        let hangs =
            self.disk.was_corrupt || self.processes.iter().any(|p| p.hung || p.frozen.is_some());
        // Nothing can be resumed of a run whose split was never durable.
        let split = self.disk.split.is_some();
        let Some(coordinator) = self.coordinator.as_ref().filter(|_| split && !hangs) else {
            return;
        };
        for (worker, sid) in &coordinator.sessions {
            let session = &self.sessions[*sid];
            let process = &self.processes[session.pid];
            let there = session.scanned && !session.cut && coordinator.run.is_member(*worker);
            let retained = process.control.retained().retained;
            let Some(at) = retained.filter(|_| there && process.alive) else {
                continue;
            };
            let at = normal(to_core(at));
            if at.epoch <= validation_losses + 1 && at > Position::start_of(1) && newest < Some(at)
            {
                self.fail(
                    "a stopped run can be resumed from its last state",
                    &format!("{worker} retains {at}, but the newest checkpoint is {newest:?}"),
                );
            }
        }
    }

    /// Whether the coordinator knows of a worker that holds a trained state.
    fn retains_a_state(&self) -> bool {
        (0..self.processes.len()).any(|pid| {
            let process = &self.processes[pid];
            let scanned = process
                .session
                .is_some_and(|sid| self.sessions[sid].scanned);
            scanned && self.is_member(pid) && process.control.retained().retained.is_some()
        })
    }

    fn check_failure(&self, error: &RunError) {
        let invariants = &self.invariants;
        let recipe = &self.scenario.recipe;
        let allowed = match error {
            RunError::TooFewWorkers { .. } => {
                let there = (0..self.processes.len()).filter(|pid| {
                    let process = &self.processes[*pid];
                    let usable = process.kind == super::process::Kind::Normal;
                    usable
                        && !process.hung
                        && !process.is_draining()
                        && self.is_member(*pid)
                        // One whose first report is in flight does not count.
                        && process.session.is_some_and(|sid| self.sessions[sid].scanned)
                        && process.frozen.is_none_or(|until| until < self.now)
                });
                let enough = there.count() >= recipe.min_workers;
                let restartable = recipe.local_ranks > 0
                    && invariants.left == 0
                    && invariants.losses <= recipe.max_restarts
                    && !invariants.early_crash;
                !enough
                    && !restartable
                    && (invariants.early_crash
                        || invariants.losses + invariants.left + invariants.extra_clients > 0)
                    || invariants.misconfigured
            }
            RunError::ExitedEarly { .. } => {
                invariants.early_crash || invariants.losses + invariants.left > 0
            }
            RunError::BestWeightsLost { .. } | RunError::BestWeightsAbsent { .. } => {
                invariants.interrupted && (invariants.losses > 0 || self.incarnations > 1)
            }
            // A GPU that no group has used yet, in a run of which nothing is recorded.
            RunError::Environment(EnvironmentError::Reported(_))
                if self.disk.split.is_none() && !self.retains_a_state() =>
            {
                invariants.misconfigured || invariants.gpus_failed
            }
            RunError::Data(_) | RunError::Environment(_) | RunError::GroupsFailing { .. } => {
                invariants.misconfigured
            }
            RunError::Weights(_)
            | RunError::RunDirectory(_)
            | RunError::WorkerDefect { .. }
            | RunError::InconsistentEpoch { .. } => false,
        };
        if !allowed {
            self.fail("a run fails only when it must", &error.to_string());
        }
    }
}
