//! One rank of a run: an agent that talks to the coordinator, and a training thread that owns
//! every tensor. Orders flow from agent to training through `control`, reports flow back.

pub mod activity;
mod address;
pub mod agent;
pub mod cli;
pub mod connect;
pub mod control;
pub mod data;
pub mod error;
mod health;
pub mod model;
mod preflight;
mod session;
pub mod setup;
pub mod telemetry;
pub mod train;
mod transfer;
