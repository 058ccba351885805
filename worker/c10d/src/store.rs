//! The key-value store over TCP through which the ranks of a group find each other.
//! It owns the sockets; what is written under which key is c10d's business.

use std::ffi::CString;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::ffi;

/// How long an operation on a served store may take before it fails.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// A handle on a TCP key-value store. Clones share one connection; any thread may
/// use them.
///
/// Use each store, or at least each prefix of it, for one [`ProcessGroup`] only:
/// ranks that find an earlier group's keys connect to sockets that are gone.
///
/// [`ProcessGroup`]: crate::ProcessGroup
#[derive(Clone, Debug)]
pub struct Store {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle(*mut ffi::ShimStore);

// SAFETY: TCPStore guards its socket with a lock, and the interrupt flag is atomic;
// the handle is freed once, by the last Arc, from whichever thread drops it.
unsafe impl Send for Handle {}
// SAFETY: as above: every function of the shim on a store may run concurrently.
unsafe impl Sync for Handle {}

impl Store {
    /// Serves a store from this process, on a free port of `bind_host` (a name or
    /// address of this machine; only there is it reachable). Returns at once, with
    /// the port, before any other rank has connected. The server lives until the
    /// last clone, and the last group built on it, are dropped.
    ///
    /// Any process that reaches the port can write to the store: bind it to a trusted network.
    ///
    /// # Errors
    /// [`Error::Serve`] when the host cannot be bound.
    pub fn serve(bind_host: &str) -> Result<(Self, u16), Error> {
        let failed = |message: String| Error::Serve {
            host: bind_host.to_owned(),
            message,
        };
        let listener =
            TcpListener::bind((bind_host, 0)).map_err(|error| failed(error.to_string()))?;
        let address = listener
            .local_addr()
            .map_err(|error| failed(error.to_string()))?;
        let own = c_string("host", &own_address(address).to_string())?;
        let mut out = std::ptr::null_mut();
        // SAFETY: `own` outlives the call and `out` is writable; the descriptor is
        // ours, is given away by `into_raw_fd`, and the shim takes it over.
        let status = unsafe {
            ffi::c10d_store_serve(
                own.as_ptr(),
                address.port(),
                listener.into_raw_fd(),
                millis(SERVER_TIMEOUT),
                &mut out,
            )
        };
        status.check().map_err(|failure| failed(failure.message))?;
        Ok((
            Self {
                handle: Arc::new(Handle(out)),
            },
            address.port(),
        ))
    }

    /// Connects to a store that another process (or thread) serves. Tries again
    /// until `timeout`, of which libtorch counts whole seconds, at least one.
    ///
    /// # Errors
    /// [`Error::Connect`] when nothing has answered by then.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, Error> {
        let c_host = c_string("host", host)?;
        let timeout = timeout.max(Duration::from_secs(1));
        let mut out = std::ptr::null_mut();
        // SAFETY: `c_host` outlives the call, and `out` is writable.
        let status =
            unsafe { ffi::c10d_store_connect(c_host.as_ptr(), port, millis(timeout), &mut out) };
        status.check().map_err(|failure| Error::Connect {
            host: host.to_owned(),
            port,
            timeout,
            message: failure.message,
        })?;
        Ok(Self {
            handle: Arc::new(Handle(out)),
        })
    }

    /// Makes every [`ProcessGroup::new`](crate::ProcessGroup::new) that waits on this
    /// store, or will, return [`Error::Aborted`] within some 20 ms. It cannot be
    /// undone: connect again.
    pub fn interrupt(&self) {
        // SAFETY: the handle is alive as long as `self`; the flag it sets is atomic.
        unsafe { ffi::c10d_store_interrupt(self.as_ptr()) }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::ShimStore {
        self.handle.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the shim and only the last owner gets here.
        // Groups built on the store hold references of their own.
        unsafe { ffi::c10d_store_free(self.0) }
    }
}

/// Where the server's own client connects: to loopback if it listens everywhere.
fn own_address(bound: SocketAddr) -> IpAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Milliseconds for the shim; a longer time than fits is as good as forever.
pub(crate) fn millis(duration: Duration) -> i64 {
    // A year, because c10d adds timeouts to time points without checking for overflow.
    const FOREVER: i64 = 365 * 24 * 3600 * 1000;
    i64::try_from(duration.as_millis())
        .unwrap_or(FOREVER)
        .min(FOREVER)
}

pub(crate) fn c_string(name: &'static str, value: &str) -> Result<CString, Error> {
    CString::new(value).map_err(|_| Error::NulByte {
        name,
        value: value.to_owned(),
    })
}
