//! The numbers that bound what clients can make the coordinator hold, and the server that
//! enforces those of HTTP/2. `transport`, `admission`, `validate` and the bounded channels to the
//! driver enforce the rest.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tonic::transport::Server;

/// From accepting a connection to its first admitted call. A longer time would only help a client
/// that holds connections to keep others out.
pub(super) const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of each listener without an admitted call.
pub(super) const MAX_PENDING: usize = 64;
/// Connections over both listeners, if there are descriptors for them.
const MAX_CONNECTIONS: usize = 4096;

/// From the start of a session to its `Register`.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// From the end of a session until its connection is closed: time for what the worker still
/// uploads.
pub const SESSION_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Sessions that have not sent their `Register`.
pub(super) const MAX_SESSIONS_PENDING: usize = 64;
/// Sessions in total.
pub(super) const MAX_SESSIONS: usize = 4096;

/// Uploads at the same time; each may take the largest blob's memory. Others wait.
pub(super) const MAX_UPLOADS: usize = 4;
/// Downloads at the same time: all ranks of a machine full of GPUs may want one.
pub(super) const MAX_DOWNLOADS: usize = 16;
/// The longest pause between two chunks of an upload.
pub const UPLOAD_STALL_LIMIT: Duration = Duration::from_secs(30);

/// Calls of one connection at the same time: its session, its uploads and its downloads.
const MAX_STREAMS: u32 = 16;
/// Bytes of a call's headers: the longest token fits.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Streams that a client may reset before they are served (CVE-2023-44487), or make fail.
const MAX_RESETS: usize = 32;

/// Raises the soft limit of descriptors to the hard one: each worker costs one, and the usual soft
/// limit is 1,024.
pub fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of descriptors");
    }
}

/// Connections that may be open over both listeners together. The other half of the descriptors is
/// for files, the page, and the standard input of each local worker.
pub(super) fn max_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current;
    let half = descriptors.map_or(MAX_CONNECTIONS, |limit| (limit / 2) as usize);
    half.min(MAX_CONNECTIONS)
}

/// A server that bounds each connection, and closes one within 5 s of its last sign of life.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
}
