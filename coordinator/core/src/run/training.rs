//! The steps of an epoch, and how far ahead of the slowest rank they may run.

use super::parts::{Assignment, Share};
use super::phase::{Pause, Phase, Training};
use super::{Now, Run};
use crate::event::{Action, Command, Fact, StepReport, StopReason, WorkerId};
use crate::shard::{epoch_order, shard, validation_chunks};

impl Run {
    /// Hands out what is left of the epoch, from the run's position on.
    pub(super) fn start_epoch(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(split) = self.dataset.split() else {
            return;
        };
        let (epoch, completed) = (self.position.epoch, self.position.completed);
        let order = epoch_order(&split.train, self.recipe.seed, epoch);
        let batch = self.recipe.global_batch;
        let steps = order.len().div_ceil(batch) as u32;
        let left = order.get(completed as usize * batch..).unwrap_or_default();
        let granted = steps.min(completed + self.pace.steps_ahead());
        let lrs = self.recipe.schedule.lrs(epoch);
        let world_size = self.members.world_size();
        let generation = self.generation;
        for (id, assignment) in self.members.assignments_mut() {
            let rank = assignment.rank as usize;
            let shard = shard(left, batch, rank, world_size);
            let chunk = self.recipe.validation_chunk;
            let validation = validation_chunks(&split.validation, chunk, rank, world_size);
            let first = validation.first().map_or(0, |chunk| chunk.index);
            assignment.completed = completed;
            assignment.report = None;
            assignment.share = Share {
                samples: shard.samples.len() as u32,
                chunks: first..first + validation.len() as u32,
            };
            let plan = Command::Plan {
                generation,
                epoch,
                completed,
                shard,
                lrs,
                validation,
                granted,
            };
            out.push(Action::Send(id, plan));
        }
        let world_size = world_size as u32;
        self.ledger.begin(generation, world_size, completed);
        out.push(Action::Notify(Fact::EpochStarted {
            epoch,
            completed,
            steps,
            world_size,
            lrs,
        }));
        self.phase = Phase::Training(Training {
            steps,
            granted,
            lrs,
            started: now,
            trained: None,
        });
        self.checkpoints.resume_epoch(completed);
        self.ask_for_checkpoint(out);
    }

    pub(super) fn on_step(
        &mut self,
        now: Now,
        worker: WorkerId,
        report: StepReport,
        out: &mut Vec<Action>,
    ) {
        let Phase::Training(training) = &self.phase else {
            return;
        };
        let Some(member) = self.members.get_mut(worker) else {
            return;
        };
        let Some(assignment) = &mut member.assignment else {
            return;
        };
        let current = report.generation == self.generation && report.epoch == self.position.epoch;
        let plausible = assignment.completed < report.completed;
        if !current || !plausible || report.completed > training.granted {
            return;
        }
        let steps = f64::from(report.completed - assignment.completed);
        assignment.completed = report.completed;
        let (rank, finite) = (assignment.rank, report.loss_sum.is_finite());
        self.pace.observe(report.seconds / steps);
        self.failures.forgive_groups();
        self.local_workers.forgive(member.local_rank);
        out.push(Action::Notify(Fact::Step { rank, report }));
        self.advance(now, finite, out);
    }

    /// Some rank has come further.
    fn advance(&mut self, now: Now, finite: bool, out: &mut Vec<Action>) {
        let slowest = self.members.completed_by_all();
        self.ledger.advance(slowest);
        if let Phase::Training(training) = &mut self.phase
            && slowest >= training.steps
        {
            training.trained.get_or_insert(now);
        }
        if !finite {
            self.stop_early(now, StopReason::NonFiniteLoss, out);
            if !matches!(self.phase, Phase::Training(_)) {
                return;
            }
        }
        if self.checkpoints.completed(now, slowest) {
            self.ask_for_checkpoint(out);
        }
        self.grant(now, slowest, out);
    }

    fn grant(&mut self, now: Now, slowest: u32, out: &mut Vec<Action>) {
        if self.pause.is_some() {
            return self.pause_if_parked(now, out);
        }
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        let granted = training.steps.min(slowest + self.pace.steps_ahead());
        if granted > training.granted {
            training.granted = granted;
            let (generation, epoch) = (self.generation, self.position.epoch);
            out.extend(self.members.assigned().map(|(id, _, _)| {
                let grant = Command::Grant {
                    generation,
                    epoch,
                    granted,
                };
                Action::Send(id, grant)
            }));
        }
    }

    /// Grants no more steps, so that all ranks stop at one step boundary.
    pub(super) fn pause(&mut self, now: Now, pause: Pause, out: &mut Vec<Action>) {
        if !matches!(self.pause, Some(Pause::Stop(_))) {
            self.pause = Some(pause);
        }
        self.pause_if_parked(now, out);
    }

    /// All ranks wait for a grant that will not come. When the epoch's last step is granted,
    /// they do not park, and the barrier at its end takes the pause into account.
    fn pause_if_parked(&mut self, now: Now, out: &mut Vec<Action>) {
        let (Phase::Training(training), Some(pause)) = (&self.phase, self.pause) else {
            return;
        };
        let granted = training.granted;
        // There may be no rank left, and then nothing to wait for.
        let parked = |(_, _, assignment): (_, _, &Assignment)| assignment.completed >= granted;
        if granted >= training.steps || !self.members.assigned().all(parked) {
            return;
        }
        self.position.completed = granted;
        match pause {
            Pause::Stop(reason) => self.finish(now, reason, out),
            // A healthy generation ends, for one with other members.
            Pause::Regroup => self.abort_generation(now, 0, out),
        }
    }
}
