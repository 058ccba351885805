//! Between messages of the wire and the types of the core: the proto types stop here. It decides
//! nothing; what may be in a message is checked by [`super::validate`] before.

mod files;
mod incoming;
mod outgoing;

pub use files::{predictions, upload};
pub use incoming::{event, position, registration};
pub use outgoing::{Wire, message};
