//! The time of day, for people and other machines. No decision depends on it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now, in Unix time.
pub fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// `time` in UTC with milliseconds, for example `2026-11-24T13:45:07.012Z`. A clock beyond the
/// year 9999 reads as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_utc_with_three_digits() {
        for (millis, text) in [
            (7, "1970-01-01T00:00:00.007Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
        let nanos = UNIX_EPOCH + Duration::from_nanos(1_999_999);
        assert_eq!(rfc3339(nanos), "1970-01-01T00:00:00.001Z", "cut, as before");
    }
}
