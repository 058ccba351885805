//! Binds listening addresses.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{address} is taken; give {flag} another port, or port 0 for a free one")]
    Taken {
        /// What was asked for.
        address: SocketAddr,
        /// The flag that asked.
        flag: &'static str,
    },
    /// The address is not of this machine, or the port is privileged.
    #[error("cannot listen on {address}: {source}; give {flag} an address of this machine")]
    Refused {
        /// What was asked for.
        address: SocketAddr,
        /// The flag that asked.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The socket in the run directory cannot be created.
    #[error(
        "cannot listen on the socket {path}: {source}; give --run-dir a directory on a file system that supports Unix sockets"
    )]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Listens on `address`, which `flag` asked for; port 0 takes a free one.
///
/// # Errors
/// The address is taken or not allowed.
pub async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address, flag },
            _ => BindError::Refused {
                address,
                flag,
                source,
            },
        })
}

/// As [`bind`], but where the user did not ask for the port (`asked` is false), a free one
/// replaces a taken one, and the second value says so: two runs on one machine must not need a
/// flag.
///
/// # Errors
/// As [`bind`].
pub async fn bind_or_free(
    address: SocketAddr,
    flag: &'static str,
    asked: bool,
) -> Result<(TcpListener, Option<String>), BindError> {
    match bind(address, flag).await {
        Err(taken @ BindError::Taken { .. }) if !asked => {
            let listener = bind(SocketAddr::new(address.ip(), 0), flag).await?;
            Ok((
                listener,
                Some(format!("{taken}; using a free port instead")),
            ))
        }
        bound => Ok((bound?, None)),
    }
}
