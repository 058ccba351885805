//! The coordinator: `core` decides, the rest carries that into the world.

pub mod convert;
pub mod core;
pub mod service;
