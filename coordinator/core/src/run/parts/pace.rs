//! How long a step takes, and what follows from that.

use std::ops::RangeInclusive;

use crate::run::Now;

/// Work granted ahead of the slowest rank: enough that no rank waits for the coordinator, and
/// little enough that a stop takes effect soon.
const GRANT_AHEAD_SECONDS: f64 = 0.5;
const GRANT_AHEAD_STEPS: RangeInclusive<u32> = 2..=64;
/// Steps that a rank may take longer than the timeouts allow: some steps are long.
const STEPS_OF_PATIENCE: f64 = 10.0;
/// What the last step weighs in the mean.
const WEIGHT: f64 = 0.1;

/// The mean of the last steps' seconds, the latest of which weigh most.
#[derive(Debug, Default)]
pub(in crate::run) struct Pace {
    step_seconds: f64,
}

impl Pace {
    /// A rank took this long for a step.
    pub(in crate::run) fn observe(&mut self, seconds: f64) {
        self.step_seconds = match self.step_seconds {
            0.0 => seconds,
            known => (1.0 - WEIGHT) * known + WEIGHT * seconds,
        };
    }

    /// Steps to grant ahead of the slowest rank.
    pub(in crate::run) fn steps_ahead(&self) -> u32 {
        let steps = if self.step_seconds > 0.0 {
            (GRANT_AHEAD_SECONDS / self.step_seconds).ceil() as u32
        } else {
            0
        };
        steps.clamp(*GRANT_AHEAD_STEPS.start(), *GRANT_AHEAD_STEPS.end())
    }

    /// As long as several steps take; 0 if the reported seconds are invalid.
    pub(in crate::run) fn patience(&self) -> Now {
        Now::try_from_secs_f64(STEPS_OF_PATIENCE * self.step_seconds).unwrap_or_default()
    }
}
