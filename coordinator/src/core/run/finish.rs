//! The orderly end: what has to be kept is kept, the last picture is made, everybody goes.

use super::{Finishing, Now, Pause, Phase, Run};
use crate::core::event::{Action, Command, Keep, Notice, Position, RunError, StopReason, WorkerId};

/// Tiles of the final picture.
const SHOWN: usize = 16;

impl Run {
    /// Ends training at the next step boundary that all ranks will reach.
    pub(super) fn stop_early(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        let first = !matches!(self.pause, Some(Pause::Stop(_)));
        match self.phase {
            Phase::Finishing(_) | Phase::Closed => {}
            Phase::Gathering | Phase::Preparing => {
                out.push(Action::Notify(Notice::Stopping(reason)));
                self.close(Ok(reason), true, out);
            }
            Phase::Training(_) | Phase::Forming { .. } | Phase::Assembling(_) => {
                if first {
                    out.push(Action::Notify(Notice::Stopping(reason)));
                }
                self.pause(now, Pause::Stop(reason), out);
                match self.phase {
                    // A group that is not there yet is not worth waiting for.
                    Phase::Forming { .. } => self.halt(now, self.world_size(), out),
                    Phase::Assembling(_) => self.assemble_if_possible(now, out),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn finish(&mut self, now: Now, reason: StopReason, out: &mut Vec<Action>) {
        self.phase = Phase::Finishing(Finishing {
            reason,
            until: now + self.recipe.grace,
            shows: None,
            asked: false,
        });
        self.ask_for_best(out);
        if reason == StopReason::Interrupted {
            self.ask_for_last_checkpoint(out);
        }
        self.go_on_finishing(now, out);
    }

    /// A stopped run is resumed from where it stands, by whoever holds most of it.
    fn ask_for_last_checkpoint(&mut self, out: &mut Vec<Action>) {
        let (position, durable) = (self.position, self.durable);
        let held = |(id, member): (&WorkerId, &super::Member)| {
            let held = if member.seat.is_some() {
                position
            } else {
                self.normal(member.held?)
            };
            Some((held, std::cmp::Reverse(*id)))
        };
        let furthest: Option<(Position, _)> = self.members.iter().filter_map(held).max();
        if let Some((held, std::cmp::Reverse(worker))) = furthest
            && Some(held) > durable
            && held > Position::start_of(1)
        {
            self.awaited_checkpoint = Some(worker);
            out.push(Action::Send(worker, Command::Keep(Keep::Checkpoint)));
        }
    }

    /// Asks for the picture once the weights that it shows are stored.
    pub(super) fn go_on_finishing(&mut self, _now: Now, out: &mut Vec<Action>) {
        let Phase::Finishing(finishing) = &self.phase else {
            return;
        };
        if self.awaited_best.is_some() || self.awaited_checkpoint.is_some() {
            return;
        }
        if finishing.asked {
            return self.close_if_finished(out);
        }
        let show = match (&self.split, self.stopping.best()) {
            (Some(split), Some(_)) => {
                let spacing = (split.validation.len() / SHOWN).max(1);
                let tiles = split.validation.iter().step_by(spacing).take(SHOWN);
                tiles.copied().collect()
            }
            _ => Vec::new(),
        };
        let (generation, first) = (self.generation, self.first());
        let finish = |id| {
            let show = if Some(id) == first {
                show.clone()
            } else {
                Vec::new()
            };
            Action::Send(id, Command::Finish { generation, show })
        };
        out.extend(self.seated().map(|(id, _, _)| finish(id)));
        if let Phase::Finishing(finishing) = &mut self.phase {
            finishing.asked = true;
            finishing.shows = first;
        }
        self.close_if_finished(out);
    }

    pub(super) fn on_finished(
        &mut self,
        _now: Now,
        worker: WorkerId,
        generation: u64,
        out: &mut Vec<Action>,
    ) {
        let asked = matches!(&self.phase, Phase::Finishing(finishing) if finishing.asked);
        if asked
            && generation == self.generation
            && let Some(member) = self.members.get_mut(&worker)
            && let Some(seat) = &mut member.seat
        {
            seat.finished = true;
            self.close_if_finished(out);
        }
    }

    fn close_if_finished(&mut self, out: &mut Vec<Action>) {
        if let Phase::Finishing(Finishing { reason, asked, .. }) = self.phase
            && asked
            && self.seated().all(|(_, _, seat)| seat.finished)
        {
            self.close(Ok(reason), false, out);
        }
    }

    /// The run is whole without its last picture, but not without its best weights.
    pub(super) fn lost_while_finishing(
        &mut self,
        now: Now,
        worker: WorkerId,
        out: &mut Vec<Action>,
    ) {
        if self.best_is_missing() {
            return self.fail(self.best_is_gone(), out);
        }
        if let Phase::Finishing(finishing) = &mut self.phase
            && finishing.shows == Some(worker)
        {
            // Somebody else can show it.
            finishing.asked = false;
            finishing.shows = None;
            for (_, seat) in self.seats() {
                // Rank 0 is whoever is left; nothing but the picture depends on it any more.
                seat.rank = seat.rank.saturating_sub(1);
                seat.finished = false;
            }
        }
        self.go_on_finishing(now, out);
    }

    pub(super) fn finish_in_time(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Phase::Finishing(Finishing { reason, until, .. }) = self.phase
            && now >= until
        {
            let outcome = match self.awaited_best {
                Some(_) => Err(self.best_is_gone()),
                None => Ok(reason),
            };
            self.close(outcome, true, out);
        }
    }

    fn best_is_gone(&self) -> RunError {
        let epoch = self.stopping.best().map_or(0, |best| best.epoch);
        RunError::Internal {
            slot: None,
            message: format!(
                "the best weights, of epoch {epoch}, did not arrive; go on with --resume"
            ),
        }
    }
}
