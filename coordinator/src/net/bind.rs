//! Binds listening addresses, and says who holds one that is taken.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "{address} is taken{}; give {flag} another port, or port 0 for a free one",
        .holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    Taken {
        /// What was asked for.
        address: SocketAddr,
        /// The flag that asked.
        flag: &'static str,
        /// The process, where this user may know.
        holder: Option<String>,
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
}

/// Listens on `address`, which `flag` asked for; port 0 takes a free one.
///
/// # Errors
/// The address is taken or not allowed.
pub async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => {
                let holder = holder_of(Path::new("/proc"), address.port());
                BindError::Taken {
                    address,
                    flag,
                    holder,
                }
            }
            _ => BindError::Refused {
                address,
                flag,
                source,
            },
        })
}

/// As [`bind`], but where nobody asked for the port (`asked` is false), a free one stands in
/// for a taken one, and the second value says so: two runs on one machine must not need a flag.
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

/// The process that listens on `port`, as `name (process 123)`. The kernel lists sockets with
/// their inodes in `net/tcp` (proc(5)); the owner has a descriptor that links to the inode.
fn holder_of(proc: &Path, port: u16) -> Option<String> {
    let inode = ["net/tcp", "net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(proc.join(table)).ok()?;
        listening_inode(&table, port)
    })?;
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir(proc).ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        // Processes of other users do not show their descriptors.
        let descriptors = std::fs::read_dir(process.path().join("fd")).ok()?;
        descriptors
            .flatten()
            .any(|descriptor| {
                std::fs::read_link(descriptor.path())
                    .is_ok_and(|target| target.as_os_str() == wanted.as_str())
            })
            .then(|| {
                let name = std::fs::read_to_string(process.path().join("comm"));
                format!(
                    "{} (process {pid})",
                    name.as_deref().unwrap_or("a program").trim()
                )
            })
    })
}

/// The inode of the socket that listens on `port`. Columns of a line: number, local address,
/// remote address, state, queues, timers, retransmits, user, timeout, inode.
fn listening_inode(table: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let matches =
            u16::from_str_radix(local_port, 16) == Ok(port) && columns.get(3) == Some(&LISTEN);
        if matches {
            columns.get(9).map(|inode| (*inode).to_owned())
        } else {
            None
        }
    })
}
