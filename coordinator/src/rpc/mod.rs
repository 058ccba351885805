//! The gRPC edge: who may connect, what a message may say, and the translation between wire
//! messages and the core's events. The wire types stop here.

pub mod access;
pub mod admission;
pub mod auth;
mod blobs;
pub mod convert;
pub mod dataset;
pub mod limits;
pub mod metrics_layer;
mod refusals;
pub mod service;
mod session;
pub mod transport;
pub mod validate;
