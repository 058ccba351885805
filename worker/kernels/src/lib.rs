//! Operations of a training step that tch lacks or has slower, on [`tch`] tensors: batch
//! normalisation fused with what follows it (CPU), the fused Adam, gradients set to zero in place,
//! autocast on the CPU, and memory that the process keeps.
//!
//! Three layers: `csrc/` holds a C interface that no C++ exception leaves; `ffi` declares it; the
//! other modules offer safe functions. It knows no model, no rank and no data, and holds no state
//! between calls but libtorch's own.

mod adam;
mod autocast;
mod error;
mod ffi;
mod memory;
mod norm;

pub use adam::{AdamOptions, adam_step, clear_grads, move_grads, zero_grads};
pub use autocast::autocast_bf16;
pub use error::Error;
pub use memory::keep_freed_memory;
pub use norm::{BatchNorm, Statistics, batch_norm_instruction_set};
