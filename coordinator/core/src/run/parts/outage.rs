//! A loss that the run has not recovered from yet.

use crate::event::{Fact, OutageCause, Position};
use crate::run::Now;

/// The time without a working process group, from the loss of one to the next.
#[derive(Debug, Default)]
pub(in crate::run) struct Outage {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Now,
    cause: OutageCause,
    /// The furthest step that any rank had reported.
    reported: Position,
}

impl Outage {
    /// A group that works is lost; `reported` is how far it was. `None`: no group worked.
    /// Later losses belong to the same outage, which has the greatest of their causes.
    pub(in crate::run) fn begin(
        &mut self,
        now: Now,
        cause: OutageCause,
        reported: Option<Position>,
    ) {
        if let Some(current) = &mut self.current {
            current.cause = current.cause.max(cause);
        } else if let Some(reported) = reported {
            self.current = Some(Current {
                since: now,
                cause,
                reported,
            });
        }
    }

    /// A group works again, from `position` on, in epochs of `steps` steps.
    pub(in crate::run) fn end(
        &mut self,
        now: Now,
        (generation, world_size): (u64, usize),
        position: Position,
        steps: u32,
    ) -> Option<Fact> {
        let current = self.current.take()?;
        Some(Fact::Recovered {
            cause: current.cause,
            generation,
            position,
            world_size,
            seconds: now.saturating_sub(current.since).as_secs_f64(),
            steps_lost: steps_between(position, current.reported, steps),
        })
    }
}

/// Steps from one position to a later one; 0 if it is not later.
fn steps_between(from: Position, to: Position, steps: u32) -> u32 {
    if to <= from {
        return 0;
    }
    ((to.epoch - from.epoch) * steps + to.completed).saturating_sub(from.completed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_across_epochs() {
        let at = |epoch, completed| Position { epoch, completed };
        assert_eq!(steps_between(at(1, 50), at(2, 3), 100), 53);
        assert_eq!(steps_between(at(1, 3), at(2, 50), 100), 147);
        assert_eq!(steps_between(at(1, 3), at(1, 50), 100), 47);
        assert_eq!(steps_between(at(2, 0), at(1, 50), 100), 0);
    }
}
