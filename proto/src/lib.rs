//! The wire contract of the system, generated from `trainer/v1/trainer.proto`, and the
//! things both ends must agree on beyond it: its version, its sizes, and how they prove to each
//! other who they are.

/// The generated messages, client and server of `trainer.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the .proto file documents them"
)]
pub mod v1 {
    tonic::include_proto!("trainer.v1");
}

/// Raised with every change that an older peer would misread; checked in `Register`.
pub const PROTOCOL_VERSION: u32 = 2;

/// The largest message either side accepts, in bytes. A manifest of a million files fits.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Data bytes in one [`v1::Chunk`].
pub const CHUNK_BYTES: usize = 1 << 20;

/// The environment variable by which a launcher tells a worker its slot.
pub const LOCAL_RANK_VARIABLE: &str = "FINETUNE_LOCAL_RANK";
