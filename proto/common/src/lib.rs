//! What coordinator and workers share beside the wire contract: the list of images, the framing
//! of large files, credentials, logging, printable text, seeded random numbers, and the ids of a
//! run's trace. Nothing here knows what a run does.

pub mod blob;
pub mod logging;
pub mod manifest;
pub mod random;
pub mod socket;
pub mod text;
pub mod tls;
pub mod token;
pub mod trace;
