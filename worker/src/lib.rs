//! One rank of a run: an agent that talks to the coordinator, and a training thread that owns
//! every tensor. Orders flow from agent to training through `control`, reports flow back.

pub mod agent;
pub mod cli;
pub mod control;
pub mod data;
pub mod error;
pub mod model;
mod random;
pub mod trainer;
