//! What the C++ shims of the crates `c10d` and `kernels` share: the status that their functions
//! return, here and in `include/status.h`, and, for build scripts, how they are compiled. It
//! knows neither libtorch's types nor what the functions do.

use std::ffi::{CStr, c_char, c_void};

#[cfg(feature = "build")]
pub mod build;

/// A failure of libtorch, Gloo or NCCL. Kinds from 2 on belong to the shim that uses them.
pub const FAILED: i32 = 1;
const OK: i32 = 0;

/// What every function of a shim that can fail returns.
#[repr(C)]
#[derive(Debug)]
#[must_use]
pub struct Status {
    kind: i32,
    message: *mut c_char,
}

/// Why a call failed.
#[derive(Debug)]
pub struct Failure {
    /// [`FAILED`], or a kind of the shim.
    pub kind: i32,
    /// The message of the library.
    pub message: String,
}

unsafe extern "C" {
    fn free(pointer: *mut c_void);
}

impl Status {
    /// Takes the message out of the status, and frees it.
    ///
    /// # Errors
    /// The call failed.
    pub fn check(self) -> Result<(), Failure> {
        if self.kind == OK {
            return Ok(());
        }
        let message = if self.message.is_null() {
            // strdup found no memory for it.
            String::from("no message")
        } else {
            // SAFETY: only a shim makes a Status, with a NUL-terminated string from strdup that
            // belongs to its receiver; it is read once and then freed once, here.
            unsafe {
                let text = CStr::from_ptr(self.message).to_string_lossy().into_owned();
                free(self.message.cast());
                text
            }
        };
        Err(Failure {
            kind: self.kind,
            message: message.trim_end().to_owned(),
        })
    }
}
