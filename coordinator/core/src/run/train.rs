//! The steps of an epoch, and how far ahead of the slowest rank they may run.

use super::{Cadence, Now, Pause, Phase, Run, Training};
use crate::event::{Action, Command, Fact, SaveState, Span, StepReport, StopReason, WorkerId};
use crate::shard::{epoch_order, shard, validation_chunks};

impl Run {
    /// Hands out what is left of the epoch, from the run's position on.
    pub(super) fn start_epoch(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(split) = &self.split else {
            return;
        };
        let (epoch, completed) = (self.position.epoch, self.position.completed);
        let order = epoch_order(&split.train, self.recipe.seed, epoch);
        let batch = self.recipe.global_batch;
        let steps = order.len().div_ceil(batch) as u32;
        let left = order.get(completed as usize * batch..).unwrap_or_default();
        let granted = steps.min(completed + ahead(self.step_seconds));
        let lrs = self.recipe.schedule.lrs(epoch);
        let world_size = self.world_size();
        let (validation_set, chunk) = (split.validation.clone(), self.recipe.validation_chunk);
        let generation = self.generation;
        for (id, assignment) in self.assignments() {
            let rank = assignment.rank as usize;
            let shard = shard(left, batch, rank, world_size);
            let validation = validation_chunks(&validation_set, chunk, rank, world_size);
            let first = validation.first().map_or(0, |chunk| chunk.index);
            assignment.completed = completed;
            assignment.report = None;
            assignment.share = (
                shard.samples.len() as u32,
                first..first + validation.len() as u32,
            );
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
        self.ledger.push(Span {
            generation,
            world_size: world_size as u32,
            first: completed,
            end: completed,
        });
        out.push(Action::Notify(Fact::EpochStarted {
            epoch,
            completed,
            steps,
            world_size: world_size as u32,
            lrs,
        }));
        self.phase = Phase::Training(Training {
            steps,
            granted,
            started: now,
            trained: None,
        });
        self.last_checkpoint.1 = self.last_checkpoint.1.min(completed);
        self.ask_for_checkpoint(out);
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
        let Some(assignment) = &mut member.assignment else {
            return;
        };
        let current = report.generation == self.generation && report.epoch == self.position.epoch;
        if !current
            || report.completed <= assignment.completed
            || report.completed > training.granted
        {
            return;
        }
        let steps = f64::from(report.completed - assignment.completed);
        assignment.completed = report.completed;
        let (rank, local_rank) = (assignment.rank, member.local_rank);
        let seconds = report.seconds / steps;
        self.step_seconds = match self.step_seconds {
            0.0 => seconds,
            known => 0.9 * known + 0.1 * seconds,
        };
        let finite = report.loss_sum.is_finite();
        out.push(Action::Notify(Fact::Step { rank, report }));
        self.consecutive_group_failures = 0;
        self.works(local_rank);
        let slowest = self
            .assigned()
            .map(|(_, _, assignment)| assignment.completed)
            .min();
        let slowest = slowest.unwrap_or(0);
        if let Some(span) = self.ledger.last_mut() {
            span.end = slowest;
        }
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        if slowest >= training.steps && training.trained.is_none() {
            training.trained = Some(now);
        }
        if !finite {
            self.stop_early(now, StopReason::NonFiniteLoss, out);
            if !matches!(self.phase, Phase::Training(_)) {
                return;
            }
        }
        self.checkpoint_if_due(now, slowest, out);
        self.grant(now, slowest, out);
    }

    fn grant(&mut self, now: Now, slowest: u32, out: &mut Vec<Action>) {
        if self.pause.is_some() {
            return self.pause_if_parked(now, out);
        }
        let ahead = ahead(self.step_seconds);
        let Phase::Training(training) = &mut self.phase else {
            return;
        };
        let wanted = training.steps.min(slowest + ahead);
        if wanted > training.granted {
            training.granted = wanted;
            let (generation, epoch) = (self.generation, self.position.epoch);
            let granted = wanted;
            let grant = |id| {
                let grant = Command::Grant {
                    generation,
                    epoch,
                    granted,
                };
                Action::Send(id, grant)
            };
            out.extend(self.assigned().map(|(id, _, _)| grant(id)));
        }
    }

    /// Grants no more steps, so that all ranks come to stand at one step boundary.
    pub(super) fn pause(&mut self, now: Now, pause: Pause, out: &mut Vec<Action>) {
        if !matches!(self.pause, Some(Pause::Stop(_))) {
            self.pause = Some(pause);
        }
        self.pause_if_parked(now, out);
    }

    /// All ranks wait for a grant that will not come. When the epoch's last step is granted,
    /// they do not park, and the barrier at its end takes the pause into account.
    pub(super) fn pause_if_parked(&mut self, now: Now, out: &mut Vec<Action>) {
        let (Phase::Training(training), Some(pause)) = (&self.phase, self.pause) else {
            return;
        };
        let granted = training.granted;
        let parked = granted < training.steps
            && self
                .assigned()
                .all(|(_, _, assignment)| assignment.completed >= granted);
        if !parked {
            return;
        }
        self.position.completed = granted;
        match pause {
            Pause::Stop(reason) => self.finish(now, reason, out),
            // A healthy generation ends, for one with other members.
            Pause::Regroup => self.abort_generation(now, 0, out),
        }
    }

    fn checkpoint_if_due(&mut self, now: Now, slowest: u32, out: &mut Vec<Action>) {
        let (since, step) = self.last_checkpoint;
        let due = match self.recipe.checkpoints {
            Cadence::EpochsOnly => false,
            Cadence::Steps(steps) => slowest >= step + steps,
            Cadence::Seconds(seconds) => now.saturating_sub(since).as_secs_f64() >= seconds,
        };
        if due {
            self.last_checkpoint = (now, slowest);
            self.checkpoint_due = true;
            self.ask_for_checkpoint(out);
        }
    }

    /// Asks the running generation for the checkpoint that is due. Never before the best weights
    /// are stored: a run that has to make them again must find a checkpoint from before them.
    pub(super) fn ask_for_checkpoint(&mut self, out: &mut Vec<Action>) {
        let wanted = self.checkpoint_due && self.awaited_checkpoint.is_none();
        if wanted
            && self.best_is_safe()
            && let (Phase::Training(_), Some(first)) = (&self.phase, self.first())
        {
            self.awaited_checkpoint = Some((first, self.known()));
            out.push(Action::Send(
                first,
                Command::SaveState(SaveState::Checkpoint),
            ));
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
