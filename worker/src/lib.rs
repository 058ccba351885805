//! worker

pub mod data;
