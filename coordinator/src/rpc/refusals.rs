//! Logs which connection was refused and why, at most once per reason and interval. It refuses
//! nothing itself.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two lines of one reason.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection or a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Handshake,
    Protocol,
    Credentials,
    Overload,
}

const REASONS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<[Lines; REASONS]>);

#[derive(Debug, Default, Clone, Copy)]
struct Lines {
    last: Option<Instant>,
    suppressed: u64,
}

impl Refusals {
    /// Writes a line, unless one of this reason was written just now.
    pub(super) fn say(&self, reason: Reason, remote: impl Display, why: &str) {
        match self.suppressed(reason, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("refused {remote}: {why}"),
            Some(more) => tracing::warn!("refused {remote}: {why} ({more} more suppressed)"),
        }
    }

    /// How many lines were suppressed before this one, when it is time for a line.
    fn suppressed(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = all.get_mut(reason as usize)?;
        if lines
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < QUIET)
        {
            lines.suppressed += 1;
            return None;
        }
        lines.last = Some(now);
        Some(std::mem::take(&mut lines.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.suppressed(Reason::Credentials, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(refusals.suppressed(Reason::Credentials, start), None);
        }
        assert_eq!(refusals.suppressed(Reason::Overload, start), Some(0));
        assert_eq!(
            refusals.suppressed(Reason::Credentials, start + QUIET),
            Some(1000)
        );
        assert_eq!(
            refusals.suppressed(Reason::Credentials, start + QUIET * 2),
            Some(0)
        );
    }
}
