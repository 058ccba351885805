//! Safe Rust over libtorch's collectives, on [`tch`] tensors: a key-value [`Store`]
//! for rendezvous, a [`ProcessGroup`] over Gloo or NCCL, DDP's gradient [`Reducer`],
//! and the few tensor operations that tch lacks or has slower.
//!
//! Three layers: `csrc/` holds a C interface that no C++ exception leaves; `ffi`
//! declares it; the other modules own its handles and offer safe functions. This is
//! the only crate of the workspace with `unsafe` in it. It knows nothing of workers,
//! coordinators, models or data.
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

mod error;
mod ffi;
mod store;

mod process_group;
mod reducer;

mod adam;
mod autocast;
pub mod cuda;
mod memory;
mod norm;
mod tensor;

pub use adam::{AdamOptions, adam_step};
pub use autocast::autocast_bf16;
pub use error::Error;
pub use memory::keep_freed_memory;
pub use norm::{BatchNorm, Statistics, batch_norm_instruction_set};
pub use process_group::{Backend, GroupOptions, ProcessGroup};
pub use reducer::{Reducer, ReducerOptions, Timings};
pub use store::Store;
pub use tensor::{libtorch_version, to_channels_last, zero_grads};
