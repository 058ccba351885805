//! coordinator

pub mod cli;
pub mod config;
pub mod launcher;
pub mod metrics;
pub mod store;
