//! Addresses and the time of day. Knows nothing of runs.

pub mod bind;
pub mod clock;
pub mod url;
