//! The images of a run: its curves and a grid of predictions.
//!
//! Owns everything from values to the bytes of a PNG. Must not read or write a file, nor know
//! where the values came from: every function here is pure, equal input gives equal bytes.

pub mod curves;
pub mod grid;

mod sheet;

pub use grid::Tile;
