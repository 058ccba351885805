//! coordinator

pub mod fetch;
