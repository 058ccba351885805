//! What can go wrong, and how a failure of the C++ side becomes one of these.

use shim::Failure;

/// A failure of this crate's calls. The text that libtorch gave is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch or a kernel refused the arguments, or could not allocate.
    #[error("{operation} failed: {message}")]
    Failed {
        /// What was asked for.
        operation: &'static str,
        /// What libtorch said.
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
