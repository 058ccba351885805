//! The command line, and the subcommands other than a run.

pub mod args;
pub mod fetch;
pub mod health;
