//! Builds a run from its parts and turns how it ended into an exit code. The only room that may
//! use every other.

pub mod exit;
pub mod open;
pub mod run;
pub mod signals;
pub mod spec;
