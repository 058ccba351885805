//! Accepts connections and looks at each before the server does: TLS where it is asked for, then
//! whether HTTP/2 is spoken at all. Each has a task of its own, so that none holds up the next.
//! Who may make a call is the guard's to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::connection::{Caller, Connection, Wire};
use super::tls_reload::Renewal;
use crate::rpc::limits::{ADMISSION_LIMIT, MAX_PENDING, max_connections};
use crate::rpc::refusals::{Kind, Refusals};

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The answer to a browser or a scraper that took this port for another.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\n\r\nworkers connect here, by gRPC; /metrics and /status are at the \
    address of --metrics-listen\n";
/// How long the reader of that answer may take to hang up.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long to wait when the system has no descriptor left for another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// One listener and what it asks of those who come.
pub(in crate::rpc) struct Acceptor {
    pub(in crate::rpc) listener: TcpListener,
    pub(in crate::rpc) tls: Option<Arc<Renewal>>,
    pub(in crate::rpc) needs_token: bool,
    pub(in crate::rpc) refusals: Arc<Refusals>,
}

/// What a connection costs while it lasts.
struct Places {
    pending: OwnedSemaphorePermit,
    open: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Lets visitors into `accept_queue` until nobody is there to receive them.
    pub(in crate::rpc) async fn serve(
        self,
        accept_queue: mpsc::Sender<std::io::Result<Connection>>,
    ) {
        let door = Arc::new(self);
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        let open = Arc::new(Semaphore::new(max_connections()));
        loop {
            let accepted = tokio::select! {
                accepted = door.listener.accept() => accepted,
                () = accept_queue.closed() => return,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let place = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
            let (Ok(pending), Ok(open)) = (place(&pending), place(&open)) else {
                door.refusals.say(
                    Kind::Crowd,
                    remote,
                    "too many connections at a time; it may try again",
                );
                continue;
            };
            let (door, accept_queue) = (Arc::clone(&door), accept_queue.clone());
            tokio::spawn(async move {
                let deadline = Instant::now() + ADMISSION_LIMIT;
                let places = Places { pending, open };
                match tokio::time::timeout_at(deadline, door.receive(stream, remote, places)).await
                {
                    // It fails only when the server is gone.
                    Ok(Ok(visitor)) => drop(accept_queue.send(Ok(visitor)).await),
                    Ok(Err((kind, why))) => door.refusals.say(kind, remote, &why),
                    Err(_) => door.refusals.say(
                        Kind::Protocol,
                        remote,
                        &format!("it said nothing of use within {ADMISSION_LIMIT:?}"),
                    ),
                }
            });
        }
    }

    async fn receive(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        places: Places,
    ) -> Result<Connection, (Kind, String)> {
        let deadline = Instant::now() + ADMISSION_LIMIT;
        // Reports are small and grants wait for them.
        stream
            .set_nodelay(true)
            .map_err(|error| (Kind::Protocol, error.to_string()))?;
        let mut wire = self.shake_hands(stream).await?;
        expect_preface(&mut wire).await?;
        let caller = Caller::new(remote, self.needs_token, places.pending);
        Ok(Connection::new(
            wire,
            PREFACE,
            caller,
            deadline,
            places.open,
        ))
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<Box<dyn Wire>, (Kind, String)> {
        let Some(renewal) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let refuse = |error: &dyn std::fmt::Display| {
            let why = format!("no TLS connection could be made: {error}");
            (Kind::Handshake, why)
        };
        let renewal = Arc::clone(renewal);
        let config = tokio::task::spawn_blocking(move || renewal.current())
            .await
            .map_err(|error| refuse(&error))?;
        let accept = TlsAcceptor::from(config).accept(stream).into_fallible();
        match accept.await {
            Ok(stream) => Ok(Box::new(stream)),
            Err((error, mut stream)) => {
                hang_up(&mut stream).await;
                Err(refuse(&error))
            }
        }
    }
}

/// Closes after what was said last could be read: closing with something unread would reset the
/// connection, and take the answer or the TLS alert away again.
async fn hang_up(wire: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut rest = [0; 1024];
    let farewell = async {
        let _ = wire.shutdown().await;
        while wire.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// Reads the preface, or as much as it takes to see that it is none.
async fn expect_preface(wire: &mut Box<dyn Wire>) -> Result<(), (Kind, String)> {
    let mut said = Vec::with_capacity(PREFACE.len());
    while said.len() < PREFACE.len() {
        let rest = (PREFACE.len() - said.len()) as u64;
        let read = wire.take(rest).read_buf(&mut said).await;
        match read {
            Ok(0) => return Err((Kind::Protocol, "it hung up at once".to_owned())),
            Err(error) => return Err((Kind::Protocol, error.to_string())),
            Ok(_) if PREFACE.starts_with(&said) => {}
            Ok(_)
                if said.first().is_some_and(u8::is_ascii_uppercase)
                    && !said.starts_with(b"PRI") =>
            {
                // Best effort for a person; what cannot be written nobody reads.
                let _ = wire.write_all(HTTP1_ANSWER).await;
                hang_up(wire).await;
                return Err((Kind::Protocol, "it speaks HTTP/1, not gRPC".to_owned()));
            }
            Ok(_) => return Err((Kind::Protocol, "it does not speak gRPC".to_owned())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn looked_at(said: &'static [u8]) -> (Result<(), (Kind, String)>, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(256);
        let client = tokio::spawn(async move {
            // In two pieces, as a network may cut them.
            let (first, second) = said.split_at(said.len() / 2);
            theirs.write_all(first).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            // The other end may have seen enough.
            let _ = theirs.write_all(second).await;
            let _ = theirs.shutdown().await;
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut wire: Box<dyn Wire> = Box::new(ours);
        let result = expect_preface(&mut wire).await;
        drop(wire);
        (result, client.await.unwrap())
    }

    #[tokio::test]
    async fn only_http2_passes_and_http1_is_answered() {
        let (result, answer) = looked_at(PREFACE).await;
        assert_eq!((result, answer), (Ok(()), Vec::new()));
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST /x HTTP/1.1\r\n\r\n"] {
            let (result, answer) = looked_at(said).await;
            assert!(result.unwrap_err().1.contains("HTTP/1"));
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
        }
        for said in [
            &b"\x16\x03\x01\x02"[..],
            b"PRI * HTTP/3",
            b"\0\0",
            b"PRI * HT",
        ] {
            let (result, answer) = looked_at(said).await;
            assert!(result.is_err() && answer.is_empty(), "{said:?}");
        }
    }
}
