//! What can go wrong, and how a status of the shim becomes one of these.

use std::time::Duration;

use crate::ffi;

/// A failure of this crate's calls. The text that libtorch, Gloo or NCCL gave is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This process called [`abort`](crate::ProcessGroup::abort) on the group, or
    /// [`interrupt`](crate::Store::interrupt) on the store. Always the answer once
    /// that has happened, whatever failed because of it.
    #[error("{operation}: aborted by this process")]
    Aborted {
        /// What was under way or asked for.
        operation: &'static str,
    },

    /// A collective failed: a peer died, aborted or was too slow, or the arguments
    /// do not suit it. The group is of no further use: build another one.
    #[error("{operation} failed: {message}")]
    Failed {
        /// What was asked for.
        operation: &'static str,
        /// What libtorch, Gloo or NCCL said.
        message: String,
    },

    /// Not every rank came to the new group in time.
    #[error(
        "rank {rank} of {world_size} waited {timeout:?} for the other ranks; \
         start the missing ones, or allow more time: {message}"
    )]
    RendezvousTimedOut {
        /// The rank that waited.
        rank: u32,
        /// How many ranks it waited for, itself included.
        world_size: u32,
        /// How long it waited.
        timeout: Duration,
        /// Which key was missing.
        message: String,
    },

    /// No store answered at this address in time.
    #[error(
        "no store answered at {host}:{port} within {timeout:?}; \
         is rank 0 up, and its port reachable from here: {message}"
    )]
    Connect {
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// How long it was tried.
        timeout: Duration,
        /// What the socket said.
        message: String,
    },

    /// The store's server could not listen on this host.
    #[error("cannot serve a store on host {host}; give an address of this machine: {message}")]
    Serve {
        /// The host asked for.
        host: String,
        /// What the socket said.
        message: String,
    },

    /// The rank does not lie below the world size, or does not fit libtorch's types.
    #[error("rank {rank} does not exist in a world of {world_size}")]
    NoSuchRank {
        /// The rank asked for.
        rank: u32,
        /// How many ranks there are.
        world_size: u32,
    },

    /// A string that goes to C holds a NUL byte.
    #[error("{name} holds a NUL byte: {value:?}")]
    NulByte {
        /// Which argument.
        name: &'static str,
        /// The whole of it.
        value: String,
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

    /// A GPU is there, but the NCCL library of this crate is not.
    #[error(
        "CUDA works, but libc10d_nccl.so could not be loaded; put it beside the program \
         or name it in C10D_NCCL_LIBRARY. tried: {tried}"
    )]
    NcclLibrary {
        /// Each path and what the loader said of it.
        tried: String,
    },
}

impl Error {
    /// Whether this process itself brought the failure about, by aborting.
    pub fn is_aborted(&self) -> bool {
        matches!(self, Self::Aborted { .. })
    }
}

/// A failure as the shim reports it, before it is given a context.
pub(crate) struct Failure {
    pub(crate) kind: i32,
    pub(crate) message: String,
}

impl Failure {
    /// The error for an operation that needs no more context than its name.
    pub(crate) fn of(self, operation: &'static str) -> Error {
        match self.kind {
            ffi::ABORTED => Error::Aborted { operation },
            _ => Error::Failed {
                operation,
                message: self.message,
            },
        }
    }
}

/// Takes the message out of a status of the shim, and frees it.
pub(crate) fn check(status: ffi::Status) -> Result<(), Failure> {
    if status.kind == ffi::OK {
        return Ok(());
    }
    let message = if status.message.is_null() {
        // strdup found no memory for it.
        String::from("no message")
    } else {
        // SAFETY: the shim returns a NUL-terminated string that belongs to us; it is
        // read once and then freed once, here, with the function meant for it.
        unsafe {
            let text = std::ffi::CStr::from_ptr(status.message)
                .to_string_lossy()
                .into_owned();
            ffi::c10d_string_free(status.message);
            text
        }
    };
    Err(Failure {
        kind: status.kind,
        message: message.trim_end().to_owned(),
    })
}
