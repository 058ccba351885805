//! Credentials and listeners: who can connect to the coordinator, and how. It knows nothing of
//! the run.
//!
//! ```text
//!  TCP ──▶ acceptor: TLS handshake ─┐
//!                                   ├▶ auth: token ──▶ service: validate
//!  Unix socket ──▶ acceptor: user ──┘        │            │ Register within 5 s
//!            │ 5 s to the first admitted call │            └ typed error
//!            └── at most 64 of each pending ──┘
//! ```
//!
//! The workers that the coordinator starts come through a Unix socket in the run directory, which
//! only its own user can open. They need no token and no certificate: a process of this user
//! could read their memory as well. Workers from elsewhere come through TCP and show what
//! [`Policy`] demands.

use std::io;
use std::sync::Arc;

use common::tls::TlsError;
use common::token::{Token, TokenError, open_to_others};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::InterceptorLayer;

use super::auth::TokenAuth;
use super::limits::max_connections;
use super::refusals::Refusals;
use super::transport::acceptor::{Acceptor, Listener};
use super::transport::connection::Connection;
use super::transport::tls_reload::Renewal;
use crate::config::RunConfig;
use crate::config::exposure::{CallPolicy, Policy};

/// Connections that were accepted and not yet taken by the server.
const ACCEPT_QUEUE: usize = 16;

/// Credentials that cannot be used, found before anything listens.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Of the files of `--tls-cert`, `--tls-key` and `--tls-ca`.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Of the file of `--token-file`.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// rustls refuses the contents of the files.
    #[error("the files of --tls-cert, --tls-key and --tls-ca cannot be used: {0}")]
    Unusable(String),
}

/// The accepted connections, for [`tonic`] to serve.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// The credentials of a run and what they demand of clients.
#[derive(Debug)]
pub struct Access {
    policy: Policy,
    renewal: Option<Arc<Renewal>>,
    token: Option<[u8; 32]>,
    refusals: Arc<Refusals>,
    notes: Vec<String>,
}

impl Access {
    /// Reads the credentials that `config` names.
    ///
    /// # Errors
    /// A file is missing, unreadable or has the wrong content; the message names it.
    pub fn new(config: &RunConfig) -> Result<Self, AccessError> {
        let policy = Policy::of(config);
        let renewal = match config.tls_files() {
            Some(files) => Some(Arc::new(Renewal::new(files)?)),
            None => None,
        };
        let mut notes = Vec::new();
        let mut token = None;
        if let Some(path) = &config.token_file {
            token = Some(Token::read(path)?.digest());
            if open_to_others(path) {
                let path = path.display();
                notes.push(format!(
                    "other users can read the join token; `chmod 600 {path}` prevents that"
                ));
            }
        }
        notes.extend(policy.warning(config.listen));
        Ok(Self {
            policy,
            renewal,
            token,
            refusals: Arc::default(),
            notes,
        })
    }

    /// What the user should know about these credentials, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The flags beside `--coordinator` that a worker started by hand needs.
    #[must_use]
    pub fn worker_flags(&self) -> &'static str {
        match (self.policy.tls, self.policy.token_file) {
            (false, false) => "",
            (true, false) => " --tls-cert FILE --tls-key FILE --tls-ca FILE",
            (false, true) => " --token-file FILE",
            (true, true) => " --tls-cert FILE --tls-key FILE --tls-ca FILE --token-file FILE",
        }
    }

    /// `https` with TLS, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.policy.tls { "https" } else { "http" }
    }

    /// Accepts the connections of both listeners until the stream is dropped. Must be called
    /// within a tokio runtime.
    pub fn accept(&self, tcp: TcpListener, unix: Option<UnixListener>) -> Incoming {
        let (accept_queue, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let open = Arc::new(Semaphore::new(max_connections()));
        let acceptor = |listener, policy| {
            let acceptor = Acceptor {
                listener,
                policy,
                refusals: Arc::clone(&self.refusals),
                open: Arc::clone(&open),
            };
            tokio::spawn(acceptor.serve(accept_queue.clone()));
        };
        if let Some(unix) = unix {
            acceptor(Listener::Unix(unix), CallPolicy::Allow);
        }
        let tls = self.renewal.clone();
        let listener = Listener::Tcp { listener: tcp, tls };
        acceptor(listener, self.policy.calls_over_tcp());
        ReceiverStream::new(incoming)
    }

    /// The layer that admits calls, for the server of what [`Self::accept`] gave.
    #[must_use]
    pub fn auth(&self) -> InterceptorLayer<TokenAuth> {
        InterceptorLayer::new(TokenAuth::new(self.token, Arc::clone(&self.refusals)))
    }
}
