//! A connection that came through the door. Until a call of it is admitted it takes one of few
//! places and lives by a deadline, so that holding connections keeps nobody else out for long.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

/// A stream of bytes, encrypted or not.
pub(in crate::rpc) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Who calls, for those who handle the calls of a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    remote: SocketAddr,
    needs_token: bool,
    /// The place among those not yet admitted.
    pending: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Caller {
    pub(in crate::rpc) fn new(
        remote: SocketAddr,
        needs_token: bool,
        pending: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            remote,
            needs_token,
            pending: Arc::new(Mutex::new(Some(pending))),
        }
    }

    /// The address at the other end.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether calls of this connection have to show a token.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        self.needs_token
    }

    /// Gives the place back and lifts the deadline.
    pub fn admit(&self) {
        self.lock().take();
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
    /// What was read already and has to be read again.
    replay: &'static [u8],
    caller: Caller,
    deadline: Option<Pin<Box<Sleep>>>,
    _open: OwnedSemaphorePermit,
}

impl Connection {
    /// `replay` is what was read from `wire`; a call has to be admitted by `deadline`.
    pub(in crate::rpc) fn new(
        wire: Box<dyn Wire>,
        replay: &'static [u8],
        caller: Caller,
        deadline: Instant,
        open: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            wire,
            replay,
            caller,
            deadline: Some(Box::pin(tokio::time::sleep_until(deadline))),
            _open: open,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        if !self.replay.is_empty() {
            let (now, later) = self
                .replay
                .split_at(self.replay.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.replay = later;
            return Poll::Ready(Ok(()));
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
