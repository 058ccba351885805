//! The limit of bytes a second, over all streams together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets bytes pass at a steady rate, in the order in which they ask.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: f64,
    /// When all bytes that were allowed so far are sent.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second as f64,
            free: Mutex::new(None),
        }
    }

    /// Returns when so many bytes may be sent.
    pub(super) async fn pass(&self, bytes: u64) {
        let now = Instant::now();
        let took = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let begin = {
            // An instant is valid after any panic.
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = free.map_or(now, |free| free.max(now));
            *free = Some(begin + took);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_share_one_rate() {
        let pace = Pace::new(1_000);
        let started = Instant::now();
        let stream = || async {
            for _ in 0..10 {
                pace.pass(100).await;
            }
        };
        tokio::join!(stream(), stream());
        // The last of 20 begins when 19 are through.
        assert_eq!(started.elapsed().as_millis(), 1_900);
        tokio::time::advance(Duration::from_secs(60)).await;
        let again = Instant::now();
        pace.pass(5_000).await;
        assert!(again.elapsed().is_zero(), "an unused rate is not saved up");
    }
}
