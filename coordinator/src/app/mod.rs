//! Builds a run from its parts and turns its end into an exit code. The only module that may use
//! every other.

mod build;
pub mod exit;
mod open;
pub mod run;
mod signals;
pub mod spec;
