//! An accepted connection. Until one of its calls is admitted it takes one of few permits and
//! has a deadline, so that idle connections do not block others for long.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use crate::config::exposure::CallPolicy;
use crate::rpc::limits::ADMISSION_TIMEOUT;
use crate::rpc::refusals::{Reason, Refusals};

/// A stream of bytes, encrypted or not.
pub(in crate::rpc) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine, through the socket in the run directory.
    Unix,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("a process at the Unix socket"),
        }
    }
}

/// What the handlers of a call know of its connection.
#[derive(Debug, Clone)]
pub struct Caller {
    remote: Remote,
    policy: CallPolicy,
    /// Held until a call is admitted.
    pending: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// A call was refused, and the log says so.
    refused: Arc<AtomicBool>,
}

impl Caller {
    pub(in crate::rpc) fn new(
        remote: Remote,
        policy: CallPolicy,
        pending: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            remote,
            policy,
            pending: Arc::new(Mutex::new(Some(pending))),
            refused: Arc::default(),
        }
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// What calls of this connection must show.
    #[must_use]
    pub fn policy(&self) -> CallPolicy {
        self.policy
    }

    /// Gives the permit back and lifts the deadline.
    pub fn admit(&self) {
        self.lock().take();
    }

    /// Notes that a call was refused for a reason that the log has.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    fn admitted(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for the server.
pub struct Connection {
    wire: Box<dyn Wire>,
    caller: Caller,
    refusals: Arc<Refusals>,
    deadline: Option<Pin<Box<Sleep>>>,
    _open: OwnedSemaphorePermit,
}

impl Connection {
    /// A call has to be admitted by `deadline`. `open` is held as long as the connection lives.
    pub(in crate::rpc) fn new(
        wire: Box<dyn Wire>,
        caller: Caller,
        refusals: Arc<Refusals>,
        deadline: Instant,
        open: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            wire,
            caller,
            refusals,
            deadline: Some(Box::pin(tokio::time::sleep_until(deadline))),
            _open: open,
        }
    }

    fn say_refused(&mut self, why: &str) {
        self.deadline = None;
        if !self.caller.refused.load(Ordering::Relaxed) {
            self.refusals.say(Reason::Protocol, self.caller.remote, why);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // `deadline` is none after a refusal.
        if self.deadline.is_some() && !self.caller.admitted() {
            self.say_refused("the connection ended without a valid gRPC request");
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.caller).finish()
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline {
            let over = deadline.as_mut().poll(cx).is_ready();
            if self.caller.admitted() {
                self.deadline = None;
            } else if over {
                self.say_refused(&format!("no valid request within {ADMISSION_TIMEOUT:?}"));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
