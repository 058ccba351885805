//! Errors of the shim: libtorch's words under the name of what was tried.

use std::ffi::{CStr, c_char};

use crate::ffi;

/// What libtorch refused or what broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {message}")]
pub struct Error {
    /// What was tried.
    pub action: &'static str,
    /// libtorch's message.
    pub message: String,
}

impl Error {
    pub(crate) fn new(action: &'static str, message: impl Into<String>) -> Self {
        Self {
            action,
            message: message.into(),
        }
    }
}

/// Turns the shim's answer, null or a message to release, into a result.
pub(crate) fn check(action: &'static str, answer: *mut c_char) -> Result<(), Error> {
    if answer.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null answer of the shim is a NUL-terminated string from strdup that belongs
    // to the caller; it is copied before it is released, once, here.
    let message = unsafe {
        let message = CStr::from_ptr(answer).to_string_lossy().into_owned();
        ffi::shim_free(answer);
        message
    };
    Err(Error { action, message })
}
