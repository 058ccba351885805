//! The one task that owns the run, what reaches it, and what it does in the world. It speaks the
//! types of the core; it must not know the wire, nor touch a file.

pub mod channels;
mod driver;
mod effects;
pub mod input;

pub use channels::{Mailbox, Outbox};
pub use driver::{Driver, Inputs};
