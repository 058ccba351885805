//! The steps of an epoch, and how far ahead of the slowest rank they may run.

use super::{Now, Phase, Run, Training};
use crate::core::event::{Action, Command, Notice, StepReport, StopReason, WorkerId};
use crate::core::shard::{epoch_order, shard, validation_chunks};

impl Run {
    pub(super) fn start_epoch(
        &mut self,
        now: Now,
        epoch: u32,
        step_seconds: f64,
        out: &mut Vec<Action>,
    ) {
        let order = epoch_order(&self.split.train, self.recipe.seed, epoch);
        let steps = order.len().div_ceil(self.recipe.global_batch) as u32;
        let granted = steps.min(ahead(step_seconds));
        let rates = self.recipe.schedule.rates(epoch);
        let world_size = self.members.len();
        for (id, member) in &mut self.members {
            member.completed = 0;
            member.report = None;
            let rank = member.rank as usize;
            let shard = shard(&order, self.recipe.global_batch, rank, world_size);
            let chunk_size = self.recipe.validation_chunk;
            let validation =
                validation_chunks(&self.split.validation, chunk_size, rank, world_size);
            let first = validation.first().map_or(0, |chunk| chunk.index);
            member.share = (
                shard.samples.len() as u32,
                first..first + validation.len() as u32,
            );
            let plan = Command::Plan {
                generation: self.generation,
                epoch,
                shard,
                rates,
                validation,
                granted,
            };
            out.push(Action::Send(*id, plan));
        }
        out.push(Action::Notify(Notice::EpochStarted {
            epoch,
            steps,
            world_size: world_size as u32,
            rates,
        }));
        self.phase = Phase::Training(Training {
            epoch,
            steps,
            granted,
            started: now,
            trained: None,
            step_seconds,
        });
    }

    pub(super) fn on_step(
        &mut self,
        now: Now,
        worker: WorkerId,
        report: StepReport,
        out: &mut Vec<Action>,
    ) {
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let current = report.generation == self.generation && report.epoch == training.epoch;
        if !current || report.completed <= member.completed || report.completed > training.granted {
            return;
        }
        let steps = f64::from(report.completed - member.completed);
        member.completed = report.completed;
        let seconds = report.seconds / steps;
        training.step_seconds = match training.step_seconds {
            0.0 => seconds,
            known => 0.9 * known + 0.1 * seconds,
        };
        let finite = report.loss_sum.is_finite();
        out.push(Action::Notify(Notice::Step {
            rank: member.rank,
            report,
        }));
        let slowest = self
            .members
            .values()
            .map(|member| member.completed)
            .min()
            .unwrap_or(0);
        if slowest >= training.steps && training.trained.is_none() {
            training.trained = Some(now);
        }
        if !finite {
            return self.stop_early(now, StopReason::NonFiniteLoss, out);
        }
        if self.interrupted.is_some() {
            return self.stop_if_parked(now, out);
        }
        let wanted = training.steps.min(slowest + ahead(training.step_seconds));
        if wanted > training.granted {
            training.granted = wanted;
            let (generation, epoch) = (self.generation, training.epoch);
            for id in self.members.keys() {
                let grant = Command::Grant {
                    generation,
                    epoch,
                    granted: wanted,
                };
                out.push(Action::Send(*id, grant));
            }
        }
    }
}

/// Work granted ahead of the slowest rank, so that nobody waits for the coordinator and yet a
/// stop takes effect soon.
const GRANT_AHEAD_SECONDS: f64 = 0.5;
const GRANT_AHEAD_STEPS: std::ops::RangeInclusive<u32> = 2..=64;

fn ahead(step_seconds: f64) -> u32 {
    let steps = if step_seconds > 0.0 {
        (GRANT_AHEAD_SECONDS / step_seconds).ceil() as u32
    } else {
        0
    };
    steps.clamp(*GRANT_AHEAD_STEPS.start(), *GRANT_AHEAD_STEPS.end())
}
