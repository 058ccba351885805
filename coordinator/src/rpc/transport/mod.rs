//! Accepted connections: a Unix socket, TCP, and TLS with certificates that are read again when
//! they change.

pub(super) mod acceptor;
pub mod connection;
pub(super) mod tls_reload;
pub mod uds;
