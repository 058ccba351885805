//! The name of a checkpoint's directory, which is its place in the run.

use coordinator_core::event::Position;

/// The name of the directory of the checkpoint at `position`.
pub(super) fn name(position: Position) -> String {
    format!("epoch-{:04}-step-{:05}", position.epoch, position.completed)
}

/// The position whose name is `text`, exactly as [`name`] writes it.
pub(super) fn parse(text: &str) -> Option<Position> {
    let (epoch, completed) = text.strip_prefix("epoch-")?.split_once("-step-")?;
    let position = Position {
        epoch: epoch.parse().ok()?,
        completed: completed.parse().ok()?,
    };
    (name(position) == text).then_some(position)
}
