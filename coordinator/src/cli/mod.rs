//! What people type, and the subcommands that are no run.

pub mod args;
pub mod fetch;
pub mod health;
