//! The run as a pure state machine: `Run::step(now, Event) -> Vec<Action>`.
//!
//! It owns membership, split, shards, schedule and the stop decision. It does no IO, reads
//! no clock (`now` is an argument), spawns nothing and holds no lock.

pub mod event;
pub mod run;
pub mod words;

pub mod early_stopping;
pub mod random;
pub mod schedule;
pub mod shard;
pub mod split;
pub mod threads;

#[cfg(test)]
mod simulation;

pub use event::{Action, Command, Event, Fact, Outcome, RunError, WorkerId};
pub use run::{Recipe, Run};
