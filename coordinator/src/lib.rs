//! The coordinator: `coordinator_core` decides, the rest carries that into the world.

pub mod app;
pub mod cli;

pub mod config;
pub mod net;

pub mod rpc;
pub mod runtime;

pub mod launcher;
pub mod store;

pub mod admin;
pub mod observe;
