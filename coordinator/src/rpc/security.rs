//! Who may talk to the coordinator, and how much of it: the one place where a connection is let
//! in, a call is admitted and a message is bounded. It knows nothing of the run.
//!
//! ```text
//!  listener ──▶ door: TLS handshake, HTTP/2 preface ──▶ guard: token ──▶ service: sense, rate
//!                │ 5 s from here to the first admitted call │               │ Register within 5 s
//!                └── at most 64 of these at a time ─────────┘               └ typed error
//! ```
//!
//! Workers that the coordinator spawns have a token of their own, made anew for each coordinator;
//! one that resumes a run knows the digests of the former ones, since their workers hold its state. Where
//! the listener speaks TLS they come through a second one, on loopback and without it: to let
//! them through the first, they would have to be given a certificate, and the only one at hand is
//! the coordinator's, whose names need not cover loopback and whose key would then prove two
//! things at once. On loopback there is nobody to hide the token from who could not read the
//! processes' memory as well.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::tls::TlsError;
use common::token::{Token, TokenError, open_to_others};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::InterceptorLayer;

use super::auth::TokenAuth;
use super::refusals::Refusals;
use super::transport::acceptor::Acceptor;
use super::transport::connection::Connection;
use super::transport::tls_reload::Renewal;
use crate::config::RunConfig;
use crate::config::exposure::Policy;
use crate::net::bind::{self, BindError};
use crate::net::url::local_url;
use crate::store::Invited;

/// Visitors that are through the door and not yet taken by the server.
const ACCEPT_QUEUE: usize = 16;
/// Former coordinators whose workers may still be there.
const MAX_FORMER: usize = 16;

/// Credentials that cannot be used, found before anything listens.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Of the files of `--tls-cert`, `--tls-key` and `--tls-ca`.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Of the file of `--token-file`, or of the random token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// rustls refuses what the files hold.
    #[error("the files of --tls-cert, --tls-key and --tls-ca cannot be used: {0}")]
    Unusable(String),
}

/// What comes through the doors, for [`server`] to serve.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// The credentials of a run and what they ask of those who connect.
#[derive(Debug)]
pub struct Security {
    policy: Policy,
    renewal: Option<Arc<Renewal>>,
    given: Option<[u8; 32]>,
    spawned: Token,
    invited: Invited,
    refusals: Arc<Refusals>,
    notes: Vec<String>,
}

impl Security {
    /// Reads the credentials that `config` names and makes a token for spawned workers.
    ///
    /// # Errors
    /// A file is missing, unreadable or holds something else; the message names it.
    pub fn new(config: &RunConfig) -> Result<Self, SecurityError> {
        let policy = Policy::of(config);
        let renewal = match config.tls_files() {
            Some(files) => Some(Arc::new(Renewal::new(files)?)),
            None => None,
        };
        let mut notes = Vec::new();
        let mut given = None;
        let spawned = Token::fresh()?;
        let mut invited = Invited::default();
        if policy.spawns {
            invited.digests.push(spawned.digest());
        }
        if let Some(path) = &config.token_file {
            given = Some(Token::read(path)?.digest());
            if open_to_others(path) {
                let path = path.display();
                notes.push(format!(
                    "others can read the join token: `chmod 600 {path}` keeps it to you"
                ));
            }
        }
        notes.extend(policy.warning(config.listen));
        Ok(Self {
            policy,
            renewal,
            given,
            spawned,
            invited,
            refusals: Arc::default(),
            notes,
        })
    }

    /// What the user should know about these credentials, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Lets in also those that a former coordinator of the run spawned, the newest of them.
    pub fn inherit(&mut self, past: &Invited) {
        let former = past.digests.iter().take(MAX_FORMER);
        self.invited.digests.extend(former);
        self.invited.apart = past.apart;
    }

    /// What the next coordinator of the run needs to let in those that this one spawns; complete
    /// once [`Self::open`] has returned.
    #[must_use]
    pub fn invited(&self) -> Invited {
        self.invited.clone()
    }

    /// What spawned workers are let in by.
    #[must_use]
    pub fn spawn_token(&self) -> Token {
        self.spawned.clone()
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

    /// Opens the doors, the first of which is `listener` on `address`. Gives what comes through them, and the URL for spawned workers.
    /// They close when the stream is dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// There is no free port on loopback for the spawned workers.
    pub async fn open(
        &mut self,
        listener: TcpListener,
        address: SocketAddr,
    ) -> Result<(Incoming, String), BindError> {
        let (accept_queue, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let mut url = local_url(self.scheme(), address);
        let refusals = Arc::clone(&self.refusals);
        let door = |listener, tls, needs_token| Acceptor {
            listener,
            tls,
            needs_token,
            refusals: Arc::clone(&refusals),
        };
        if self.policy.spawned_apart() {
            let apart = bind_apart(self.invited.apart).await?;
            let address = apart.local_addr().map_err(|source| BindError::Refused {
                address,
                flag: "--listen",
                source,
            })?;
            url = local_url("http", address);
            self.invited.apart = Some(address);
            tokio::spawn(door(apart, None, true).serve(accept_queue.clone()));
        }
        let needs_token = self.policy.needs_token();
        tokio::spawn(door(listener, self.renewal.clone(), needs_token).serve(accept_queue));
        Ok((ReceiverStream::new(incoming), url))
    }

    /// The layer that admits calls, for the server of what [`Self::open`] gave. What is inherited
    /// later it does not know.
    #[must_use]
    pub fn guard(&self) -> InterceptorLayer<TokenAuth> {
        let accepted = self.invited.digests.iter().chain(&self.given);
        let accepted = accepted.copied().collect();
        InterceptorLayer::new(TokenAuth::new(accepted, Arc::clone(&self.refusals)))
    }
}

/// Where the workers of a former coordinator look for this one, if that can be had.
async fn bind_apart(former: Option<SocketAddr>) -> Result<TcpListener, BindError> {
    if let Some(address) = former.filter(|address| address.ip().is_loopback()) {
        match bind::bind(address, "--listen").await {
            Ok(listener) => return Ok(listener),
            Err(error) => tracing::warn!(
                "{error}; spawned workers that still look there will not find this run"
            ),
        }
    }
    bind::bind((Ipv4Addr::LOCALHOST, 0).into(), "--listen").await
}
