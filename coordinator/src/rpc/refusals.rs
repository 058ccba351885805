//! Says who was refused and why, but not once for each of a flood. It refuses nobody itself.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two lines of one kind.
const QUIET: Duration = Duration::from_secs(10);

/// What somebody was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Handshake,
    Protocol,
    Token,
    Crowd,
}

const KINDS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<[Heard; KINDS]>);

#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    said: Option<Instant>,
    kept_quiet: u64,
}

impl Refusals {
    /// Writes a line, unless one of this kind was written just now.
    pub(super) fn say(&self, kind: Kind, remote: SocketAddr, why: &str) {
        match self.since(kind, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("refused {remote}: {why}"),
            Some(more) => tracing::warn!("refused {remote}: {why} ({more} more like it before)"),
        }
    }

    /// How many were kept quiet before this one, when it is time for a line.
    fn since(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = all.get_mut(kind as usize)?;
        if heard
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < QUIET)
        {
            heard.kept_quiet += 1;
            return None;
        }
        heard.said = Some(now);
        Some(std::mem::take(&mut heard.kept_quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.since(Kind::Token, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(refusals.since(Kind::Token, start), None);
        }
        assert_eq!(refusals.since(Kind::Crowd, start), Some(0));
        assert_eq!(refusals.since(Kind::Token, start + QUIET), Some(1000));
        assert_eq!(refusals.since(Kind::Token, start + QUIET * 2), Some(0));
    }
}
