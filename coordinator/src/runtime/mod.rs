//! The one task that owns the run, and everything that reaches it.

pub mod driver;
pub mod input;
pub mod keeper;
