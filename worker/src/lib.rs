//! One rank of a run: an agent that talks to the coordinator, and a training thread that owns
//! every tensor. What both do next is decided by `worker_control`.

pub mod agent;
pub mod cli;
pub mod error;
pub mod model;
pub mod trainer;
