//! Safe Rust over libtorch's collectives (c10d): store, process groups and DDP's Reducer, and
//! the few things that tch lacks for training. The only `unsafe` of the workspace, in three
//! layers: `ffi` declares the C ABI of `csrc/shim.h`, the types own what it hands out, and their
//! methods check what the ABI requires. Nothing here knows of runs, epochs or ranks' roles.

mod error;
mod ffi;

pub mod cuda;

mod process_group;
mod reducer;
mod store;
mod tensors;

pub use error::Error;
pub use process_group::{Backend, ProcessGroup};
pub use reducer::{Reducer, ReducerOptions, Timings};
pub use store::Store;
pub use tensors::{Adam, autocast_bf16, channels_last, libtorch_version, zero_grads};
