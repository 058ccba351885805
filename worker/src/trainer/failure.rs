//! Errors of libraries as errors of the training thread.

use std::fmt::Display;

use worker_control::TrainError;

/// The data folder cannot be used.
pub(super) fn data_failure(error: impl Display) -> TrainError {
    TrainError::Data(error.to_string())
}

/// The pretrained weights cannot be used.
pub(super) fn weights_failure(error: impl Display) -> TrainError {
    TrainError::Weights(error.to_string())
}

/// A device or library is missing.
pub(super) fn environment(error: impl Display) -> TrainError {
    TrainError::Environment(error.to_string())
}

/// A collective broke.
pub(super) fn collective(error: impl Display) -> TrainError {
    TrainError::Collective(first_line(error))
}

/// Anything else.
pub(super) fn internal(error: impl Display) -> TrainError {
    TrainError::Internal(first_line(error))
}

/// libtorch's messages end in a C++ stack trace, which does not help a user.
fn first_line(error: impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
