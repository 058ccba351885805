//! The key-value store through which the ranks of a group find each other.

use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use crate::error::{Error, check};
use crate::ffi;

/// A TCPStore: the serving end, or a connection to one.
#[derive(Debug)]
pub struct Store {
    raw: *mut c_void,
}

// SAFETY: the pointer owns a reference to a c10d::TCPStore, whose client locks a mutex around
// every request, so it may be used and released on any thread.
unsafe impl Send for Store {}

impl Store {
    /// Serves on a free port of `host` and returns the port. Waits for nobody.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn serve(host: &str, timeout: Duration) -> Result<(Self, u16), Error> {
        let host = c_string("serve a store", host)?;
        let (mut raw, mut port) = (null_mut(), 0);
        // SAFETY: all pointers are to live locals; `raw` is owned by the result on success.
        let answer =
            unsafe { ffi::shim_store_serve(host.as_ptr(), millis(timeout), &mut raw, &mut port) };
        check("serve a store", answer)?;
        Ok((Self { raw }, port))
    }

    /// Connects to a serving store; its requests time out after `timeout` too.
    ///
    /// # Errors
    /// When nobody answers at `host:port` within `timeout`.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, Error> {
        let host = c_string("connect to the store", host)?;
        let mut raw = null_mut();
        // SAFETY: as in `serve`.
        let answer =
            unsafe { ffi::shim_store_connect(host.as_ptr(), port, millis(timeout), &mut raw) };
        check("connect to the store", answer)?;
        Ok(Self { raw })
    }

    pub(crate) fn raw(&self) -> *mut c_void {
        self.raw
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the shim, is not null, and is released only here.
        unsafe { ffi::shim_store_drop(self.raw) }
    }
}

pub(crate) fn c_string(action: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(action, format!("`{text}` holds a NUL byte")))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
