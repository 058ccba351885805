//! coordinator

pub mod admin;
pub mod cli;
pub mod config;
pub mod launcher;
pub mod metrics;
pub mod progress;
pub mod shutdown;
pub mod store;
pub mod telemetry;
