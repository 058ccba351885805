//! The errors of this crate, and the conversion of a failure of the C++ side.

use std::time::Duration;

use shim::Failure;

use crate::ffi;

/// A failure of this crate's calls. It contains the message of libtorch, Gloo or NCCL.
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
    /// do not suit it. The group cannot be used any more: form another one.
    #[error("{operation} failed: {message}")]
    Failed {
        /// What was asked for.
        operation: &'static str,
        /// The message of libtorch, Gloo or NCCL.
        message: String,
    },

    /// Not every rank joined the new group in time.
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
        /// The error of the socket.
        message: String,
    },

    /// The store's server could not listen on this host.
    #[error("cannot serve a store on host {host}; give an address of this machine: {message}")]
    Serve {
        /// The host asked for.
        host: String,
        /// The error of the socket.
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

    /// The GPU that was asked for is none that this process sees.
    #[error(
        "--gpu {gpu} is no GPU of this process: give an index below the number of GPUs{}, or a \
         UUID as `nvidia-smi -L` prints it",
        .visible.as_ref().map(|list| format!(" in CUDA_VISIBLE_DEVICES={list}")).unwrap_or_default()
    )]
    NoSuchGpu {
        /// What was asked for.
        gpu: String,
        /// Those that the process sees, if they are listed.
        visible: Option<String>,
    },

    /// The environment is set before there are threads.
    #[error("the environment cannot be set any more: there are {threads} threads")]
    Threads {
        /// How many there are.
        threads: usize,
    },

    /// A GPU is there, but the NCCL library of this crate is not.
    #[error(
        "CUDA works, but libc10d_nccl.so could not be loaded; put it beside the program \
         or name it in C10D_NCCL_LIBRARY. tried: {tried}"
    )]
    NcclLibrary {
        /// Each path and the loader's error.
        tried: String,
    },
}

/// The error of an operation that needs no more context than its name.
pub(crate) fn of(operation: &'static str) -> impl FnOnce(Failure) -> Error {
    move |failure| match failure.kind {
        ffi::ABORTED => Error::Aborted { operation },
        _ => Error::Failed {
            operation,
            message: failure.message,
        },
    }
}
