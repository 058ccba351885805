//! coordinator

pub mod fetch;
pub mod report;
