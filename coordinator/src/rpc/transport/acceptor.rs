//! Accepts connections and makes the TLS handshake where one is due. Each connection has a task
//! of its own, so that none delays the next. It decides nothing about calls: `auth` does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::connection::{Caller, Connection, Remote, Wire};
use super::tls_reload::Renewal;
use crate::config::exposure::CallPolicy;
use crate::rpc::limits::{ADMISSION_TIMEOUT, MAX_PENDING};
use crate::rpc::refusals::{Reason, Refusals};

/// How long the peer of a failed handshake may take to read the TLS alert.
const ALERT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait when the system has no descriptor left for another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What a connection is accepted from.
#[derive(Debug)]
pub(in crate::rpc) enum Listener {
    Tcp {
        listener: TcpListener,
        tls: Option<Arc<Renewal>>,
    },
    Unix(UnixListener),
}

/// A connection before any handshake.
enum Accepted {
    Tcp(TcpStream, Option<Arc<Renewal>>),
    Unix(UnixStream),
}

/// One listener and what its calls must show.
pub(in crate::rpc) struct Acceptor {
    pub(in crate::rpc) listener: Listener,
    pub(in crate::rpc) policy: CallPolicy,
    pub(in crate::rpc) refusals: Arc<Refusals>,
    /// Connections that may still be opened, over all listeners.
    pub(in crate::rpc) open: Arc<Semaphore>,
}

/// What a connection costs while it lasts.
struct Permits {
    pending: OwnedSemaphorePermit,
    open: OwnedSemaphorePermit,
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, Remote)> {
        match self {
            Self::Tcp { listener, tls } => {
                let (stream, remote) = listener.accept().await?;
                Ok((Accepted::Tcp(stream, tls.clone()), Remote::Tcp(remote)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), Remote::Unix))
            }
        }
    }
}

impl Acceptor {
    /// Sends connections into `accept_queue` until its receiver is gone.
    pub(in crate::rpc) async fn serve(self, accept_queue: mpsc::Sender<io::Result<Connection>>) {
        let acceptor = Arc::new(self);
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.listener.accept() => accepted,
                () = accept_queue.closed() => return,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    let why = format!("it cannot be accepted: {error}");
                    let next = "the next connection";
                    acceptor.refusals.say(Reason::Overload, next, &why);
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let permit = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
            let (Ok(pending), Ok(open)) = (permit(&pending), permit(&acceptor.open)) else {
                let why = "too many connections; try again";
                acceptor.refusals.say(Reason::Overload, remote, why);
                continue;
            };
            let permits = Permits { pending, open };
            let (acceptor, accept_queue) = (Arc::clone(&acceptor), accept_queue.clone());
            tokio::spawn(async move {
                match acceptor.receive(stream, remote, permits).await {
                    // It fails only when the server is gone.
                    Ok(connection) => drop(accept_queue.send(Ok(connection)).await),
                    Err((reason, why)) => acceptor.refusals.say(reason, remote, &why),
                }
            });
        }
    }

    async fn receive(
        &self,
        accepted: Accepted,
        remote: Remote,
        permits: Permits,
    ) -> Result<Connection, (Reason, String)> {
        let deadline = Instant::now() + ADMISSION_TIMEOUT;
        let wire = tokio::time::timeout_at(deadline, handshake(accepted))
            .await
            .unwrap_or_else(|_| {
                let why = format!("no TLS handshake within {ADMISSION_TIMEOUT:?}");
                Err((Reason::Handshake, why))
            })?;
        let caller = Caller::new(remote, self.policy, permits.pending);
        let refusals = Arc::clone(&self.refusals);
        Ok(Connection::new(
            wire,
            caller,
            refusals,
            deadline,
            permits.open,
        ))
    }
}

async fn handshake(accepted: Accepted) -> Result<Box<dyn Wire>, (Reason, String)> {
    let (stream, renewal) = match accepted {
        Accepted::Tcp(stream, renewal) => (stream, renewal),
        Accepted::Unix(stream) => {
            same_user(&stream)?;
            return Ok(Box::new(stream));
        }
    };
    // Reports are small, and grants wait for them.
    stream
        .set_nodelay(true)
        .map_err(|error| (Reason::Protocol, error.to_string()))?;
    let Some(renewal) = renewal else {
        return Ok(Box::new(stream));
    };
    let refuse = |error: &dyn std::fmt::Display| {
        let why = format!("the TLS handshake failed: {error}");
        (Reason::Handshake, why)
    };
    let config = tokio::task::spawn_blocking(move || renewal.current())
        .await
        .map_err(|error| refuse(&error))?;
    match TlsAcceptor::from(config)
        .accept(stream)
        .into_fallible()
        .await
    {
        Ok(stream) => Ok(Box::new(stream)),
        Err((error, mut stream)) => {
            hang_up(&mut stream).await;
            Err(refuse(&error))
        }
    }
}

/// The mode of the socket keeps other users out, where its file system honours modes.
fn same_user(stream: &UnixStream) -> Result<(), (Reason, String)> {
    let refuse = |why: String| (Reason::Credentials, why);
    let peer = stream
        .peer_cred()
        .map_err(|error| refuse(format!("the user of the process is not known: {error}")))?;
    let own = rustix::process::geteuid().as_raw();
    if [own, 0].contains(&peer.uid()) {
        return Ok(());
    }
    Err(refuse(format!(
        "it belongs to user {}, and this coordinator to user {own}",
        peer.uid()
    )))
}

/// Closes after the peer could read what was sent last: closing a connection that holds unread
/// bytes would reset it, and take the TLS alert away again.
async fn hang_up(wire: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut rest = [0; 1024];
    let drain = async {
        let _ = wire.shutdown().await;
        while wire.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(ALERT_TIMEOUT, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_listeners_share_one_budget_of_connections() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workers.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let tcp = Listener::Tcp {
            listener: tcp,
            tls: None,
        };
        let unix = Listener::Unix(UnixListener::bind(&path).unwrap());
        let open = Arc::new(Semaphore::new(1));
        let (accept_queue, mut accepted) = mpsc::channel(1);
        for listener in [tcp, unix] {
            let acceptor = Acceptor {
                listener,
                policy: CallPolicy::Allow,
                refusals: Arc::default(),
                open: Arc::clone(&open),
            };
            tokio::spawn(acceptor.serve(accept_queue.clone()));
        }
        let _client = TcpStream::connect(address).await.unwrap();
        let first = accepted.recv().await.unwrap().unwrap();
        let mut refused = UnixStream::connect(&path).await.unwrap();
        assert_eq!(refused.read(&mut [0]).await.unwrap(), 0, "it is closed");
        drop(first);
        let _client = UnixStream::connect(&path).await.unwrap();
        assert!(accepted.recv().await.unwrap().is_ok());
    }
}
