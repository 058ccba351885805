//! The time of day, for what is shown to people and other machines. Nothing is decided by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in Unix time.
pub fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
