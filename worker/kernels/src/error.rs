//! The errors of this crate, and the conversion of a failure of the C++ side.

use shim::Failure;

/// A failure of this crate's calls. It contains the message of libtorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch or a kernel refused the arguments, or could not allocate.
    #[error("{operation} failed: {message}")]
    Failed {
        /// What was asked for.
        operation: &'static str,
        /// The message of libtorch.
        message: String,
    },

    /// Two lists that belong together differ in length.
    #[error("{operation}: {expected} parameters, but {found} {name}")]
    LengthMismatch {
        /// What was asked for.
        operation: &'static str,
        /// Which list.
        name: &'static str,
        /// The number of parameters.
        expected: usize,
        /// The length of the list.
        found: usize,
    },
}

/// The error of a call that failed.
pub(crate) fn of(operation: &'static str) -> impl FnOnce(Failure) -> Error {
    move |failure| Error::Failed {
        operation,
        message: failure.message,
    }
}
