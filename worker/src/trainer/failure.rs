//! Errors of the training thread as the coordinator hears them.

use std::fmt::Display;

use proto::v1;

fn failure(kind: v1::FailureKind, error: impl Display) -> v1::Failure {
    v1::Failure {
        kind: kind.into(),
        message: error.to_string(),
    }
}

/// The data folder is of no use.
pub(super) fn data_failure(error: impl Display) -> v1::Failure {
    failure(v1::FailureKind::Data, error)
}

/// The pretrained weights are of no use.
pub(super) fn weights_failure(error: impl Display) -> v1::Failure {
    failure(v1::FailureKind::Weights, error)
}

/// A device or library is missing.
pub(super) fn environment(error: impl Display) -> v1::Failure {
    failure(v1::FailureKind::Environment, error)
}

/// A collective broke.
pub(super) fn collective(error: impl Display) -> v1::Failure {
    failure(v1::FailureKind::Collective, one_line(error))
}

/// Anything else.
pub(super) fn internal(error: impl Display) -> v1::Failure {
    failure(v1::FailureKind::Internal, one_line(error))
}

/// libtorch's messages end in a C++ stack trace that helps nobody here.
fn one_line(error: impl Display) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
