//! How fast a session may talk: a bucket of messages and one of bytes, refilled by time. It reads
//! no clock.

use std::time::Instant;

use tonic::Status;

use super::limits::{BYTE_BURST, BYTES_PER_SECOND, MESSAGE_BURST, MESSAGES_PER_SECOND};

/// What one session may still send.
#[derive(Debug)]
pub struct Rate {
    messages: Bucket,
    bytes: Bucket,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    size: f64,
    per_second: f64,
    at: Instant,
}

impl Rate {
    /// A session that begins now, with all of its burst.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::full(MESSAGE_BURST, MESSAGES_PER_SECOND, now),
            bytes: Bucket::full(BYTE_BURST, BYTES_PER_SECOND, now),
        }
    }

    /// Counts a message of `bytes`.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when it is too much.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Status> {
        if !self.messages.take(1.0, now) {
            return Err(Status::resource_exhausted(format!(
                "more than {MESSAGES_PER_SECOND} messages a second"
            )));
        }
        if !self.bytes.take(bytes as f64, now) {
            return Err(Status::resource_exhausted(format!(
                "more than {BYTES_PER_SECOND} bytes of messages a second"
            )));
        }
        Ok(())
    }
}

impl Bucket {
    fn full(size: f64, per_second: f64, at: Instant) -> Self {
        Self {
            level: size,
            size,
            per_second,
            at,
        }
    }

    fn take(&mut self, amount: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.size);
        self.at = now;
        if self.level < amount {
            return false;
        }
        self.level -= amount;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_a_flood_does_not_and_time_makes_good() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let burst = MESSAGE_BURST as usize;
        assert!((0..burst).all(|_| rate.take(100, start).is_ok()));
        let refused = rate.take(100, start).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let later = start + Duration::from_secs(1);
        let admitted = (0..burst).filter(|_| rate.take(100, later).is_ok()).count();
        assert_eq!(admitted, MESSAGES_PER_SECOND as usize);
        // The permitted average may go on for ever.
        for step in 0..20_000_u32 {
            let now = later + Duration::from_micros(500) * (step + 1);
            assert!(rate.take(100, now).is_ok(), "{step}");
        }
    }

    #[test]
    fn one_largest_message_passes_and_a_second_right_after_it_does_not() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert!(rate.take(proto::MAX_MESSAGE_BYTES, start).is_ok());
        assert!(rate.take(proto::MAX_MESSAGE_BYTES, start).is_err());
        assert!(rate.take(1_000, start + Duration::from_secs(1)).is_ok());
    }
}
