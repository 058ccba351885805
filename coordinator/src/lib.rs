//! The coordinator: `core` decides, the rest carries that into the world.

pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod opening;
pub mod recipe;
pub mod refusal;

pub mod arrival;
pub mod calls;
pub mod convert;
pub mod dataset;
pub mod driver;
pub mod keeper;
pub mod observe;
pub mod security;
pub mod service;

pub mod admin;
pub mod cache_file;
pub mod fetch;
pub mod health;
pub mod launcher;
pub mod metrics;
pub mod progress;
pub mod report;
pub mod shutdown;
pub mod store;
pub mod telemetry;
