//! Safe Rust over libtorch's collectives, on [`tch`] tensors: a key-value [`Store`]
//! for rendezvous, a [`ProcessGroup`] over Gloo or NCCL, and DDP's gradient [`Reducer`].
//!
//! Three layers: `csrc/` holds a C interface that no C++ exception leaves; `ffi`
//! declares it; the other modules own its handles and offer safe functions. It knows
//! nothing of workers, coordinators, models or data.
//!
//! A rank's life in one generation:
//!
//! ```text
//! rank 0:  Store::serve ─ port ─▶ announced to the others
//! others:  Store::connect
//! all:     ProcessGroup::new ─▶ Reducer::new ─▶ { prepare_for_forward, forward, backward }*
//! failure: abort() from any thread ─▶ the blocked call returns Err ─▶ drop the
//!          Reducer and the group ─▶ a fresh store, a new group, in the same process
//! ```

pub mod cuda;
pub mod process;

mod error;
mod ffi;
mod graph;
mod host_copy;
mod process_group;
mod reducer;
mod store;

pub use error::Error;
pub use graph::Graph;
pub use host_copy::HostCopy;
pub use process_group::{Backend, GroupOptions, ProcessGroup};
pub use reducer::{Reducer, ReducerOptions, Timings};
pub use store::Store;
