//! Where in a run a checkpoint stands, and the name that says so.

use std::fmt;

use coordinator_core::event;

/// A place between two steps; the order is that of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// From 1.
    pub epoch: u32,
    /// Steps completed in this epoch; 0 is between it and the epoch before.
    pub completed: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch-{:04}-step-{:05}", self.epoch, self.completed)
    }
}

impl From<event::Position> for Position {
    fn from(position: event::Position) -> Self {
        Self {
            epoch: position.epoch,
            completed: position.completed,
        }
    }
}

impl From<Position> for event::Position {
    fn from(position: Position) -> Self {
        Self {
            epoch: position.epoch,
            completed: position.completed,
        }
    }
}

impl Position {
    /// The position whose name is `name`, exactly as [`fmt::Display`] writes it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (epoch, completed) = name.strip_prefix("epoch-")?.split_once("-step-")?;
        let position = Self {
            epoch: epoch.parse().ok()?,
            completed: completed.parse().ok()?,
        };
        (position.to_string() == name).then_some(position)
    }
}
