//! The steps of an epoch, and how far ahead of the slowest rank they may run.

use super::Run;
use super::parts::{Assignment, Share};
use super::phase::{Pause, Phase, Training};
use crate::event::{Action, Command, Fact, StepReport, StopReason, WorkerId};
use crate::shard::{epoch_order, shard, validation_chunks};

impl Run {
    /// Hands out what is left of the epoch, from the run's position on.
    pub(super) fn start_epoch(&mut self) {
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
            self.out.push(Action::Send(id, plan));
        }
        let world_size = world_size as u32;
        self.ledger.begin(generation, world_size, completed);
        self.notify(Fact::EpochStarted {
            epoch,
            completed,
            steps,
            world_size,
            lrs,
        });
        self.phase = Phase::Training(Training {
            steps,
            granted,
            lrs,
            started: self.now,
            trained: None,
        });
        self.checkpoints.resume_epoch(completed);
        self.ask_for_checkpoint();
    }

    pub(super) fn on_step(&mut self, worker: WorkerId, report: StepReport) {
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
        self.stepped = true;
        let (rank, finite) = (assignment.rank, report.loss_sum.is_finite());
        self.pace.observe(report.seconds / steps);
        self.failures.forgive_groups();
        self.local_workers.forgive(member.local_rank);
        self.notify(Fact::Step { rank, report });
        self.advance(finite);
    }

    /// Some rank has come further.
    fn advance(&mut self, finite: bool) {
        let slowest = self.members.completed_by_all();
        self.ledger.advance(slowest);
        if let Phase::Training(training) = &mut self.phase
            && slowest >= training.steps
        {
            training.trained.get_or_insert(self.now);
        }
        if !finite {
            self.stop_early(StopReason::NonFiniteLoss);
            if !matches!(self.phase, Phase::Training(_)) {
                return;
            }
        }
        if self.checkpoints.completed(self.now, slowest) {
            self.ask_for_checkpoint();
        }
        self.grant(slowest);
    }

    fn grant(&mut self, slowest: u32) {
        if self.pause.is_some() {
            return self.pause_if_parked();
        }
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        let granted = training.steps.min(slowest + self.pace.steps_ahead());
        if granted > training.granted {
            training.granted = granted;
            let (generation, epoch) = (self.generation, self.position.epoch);
            self.out.extend(self.members.assigned().map(|(id, _, _)| {
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
    pub(super) fn pause(&mut self, pause: Pause) {
        if !matches!(self.pause, Some(Pause::Stop(_))) {
            self.pause = Some(pause);
        }
        self.pause_if_parked();
    }

    /// All ranks wait for a grant that will not come. When the epoch's last step is granted,
    /// they do not park, and the barrier at its end takes the pause into account.
    fn pause_if_parked(&mut self) {
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
            Pause::Stop(reason) => self.finish(reason),
            // A healthy generation ends, for one with other members.
            Pause::Regroup => self.abort_generation(0),
        }
    }
}
