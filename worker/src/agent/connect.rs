//! How a worker connects to its coordinator: address, TLS and join token. It makes one connection
//! at a time; `session` tries again and sends the messages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::socket::{self, ShortPath};
use common::tls::TlsFiles;
use common::token::{HEADER, Token, TokenError};
use hyper_util::rt::TokioIo;
use proto::MAX_MESSAGE_BYTES;
use proto::v1::trainer_client::TrainerClient;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Stdin};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::cli::Cli;
use crate::error::AgentError;

/// One attempt to connect, TLS included.
const ATTEMPT: Duration = Duration::from_secs(5);
/// HTTP/2 requires an authority, and a Unix socket has none.
const ANY_AUTHORITY: &str = "http://localhost";

/// A client whose calls carry the join token, where there is one.
pub(crate) type Client = TrainerClient<InterceptedService<Channel, Bearer>>;

/// Puts the token into each call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(HEADER, token.clone());
        }
        Ok(request)
    }
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where to connect, and with which certificate.
#[derive(Debug)]
enum Target {
    Tcp {
        host: String,
        port: u16,
        tls: Option<(TlsFiles, ServerName<'static>)>,
    },
    Unix(PathBuf),
}

/// A coordinator to connect to, any number of times.
#[derive(Debug)]
pub(crate) struct Coordinator {
    url: String,
    target: Arc<Target>,
    token_file: Option<PathBuf>,
}

impl Coordinator {
    /// The coordinator that the flags name.
    ///
    /// # Errors
    /// [`AgentError::Usage`] for flags that do not fit together and files that cannot be
    /// used.
    pub(crate) fn of(cli: &Cli) -> Result<Self, AgentError> {
        let coordinator = Self {
            url: cli.coordinator.clone(),
            target: Arc::new(Target::of(cli)?),
            token_file: cli.token_file.clone(),
        };
        if let Target::Tcp {
            tls: Some((files, _)),
            ..
        } = &*coordinator.target
        {
            files
                .load()
                .map_err(|error| AgentError::Usage(error.to_string()))?;
        }
        coordinator
            .token()
            .map_err(|error| AgentError::Usage(error.to_string()))?;
        Ok(coordinator)
    }

    /// Its address as given.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes one attempt to connect. The files are read anew, for this connection and for those
    /// that the client makes when it breaks.
    ///
    /// # Errors
    /// The innermost cause as text; another attempt may succeed.
    pub(crate) async fn client(&self) -> Result<Client, String> {
        let token = self.token().map_err(|error| error.to_string())?;
        let endpoint = self
            .target
            .endpoint(&self.url)
            .map_err(|error| root_cause(&error))?
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let target = Arc::clone(&self.target);
        let connector = tower::service_fn(move |_: Uri| {
            let target = Arc::clone(&target);
            async move { target.dial().await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| root_cause(&error))?;
        let bearer = Bearer(token.and_then(|token| token.header()));
        Ok(TrainerClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The first address of its name; `None` for a Unix socket.
    pub(crate) async fn address(&self) -> Option<SocketAddr> {
        let Target::Tcp { host, port, .. } = &*self.target else {
            return None;
        };
        let target = (host.as_str(), *port);
        tokio::net::lookup_host(target).await.ok()?.next()
    }

    fn token(&self) -> Result<Option<Token>, TokenError> {
        self.token_file.as_deref().map(Token::read).transpose()
    }
}

/// Why the connection of a call broke; `None` when the coordinator itself answered with this
/// status. A broken connection has a source error below the status; an answer has none.
pub(crate) fn broken(status: &Status) -> Option<String> {
    let source = std::error::Error::source(status)?;
    Some(format!(
        "the connection was closed: {}; if that repeats, check that the address has the scheme \
         that the coordinator prints, http:// or https://, and that the --tls-ca of each side \
         signed the certificate of the other",
        root_cause(source)
    ))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Target {
    fn of(cli: &Cli) -> Result<Self, AgentError> {
        let refuse = |message: String| AgentError::Usage(message);
        let url = &cli.coordinator;
        let tls = tls_files(cli)?;
        if let Some(path) = socket::path_of(url) {
            return match tls {
                None => Ok(Self::Unix(path.to_owned())),
                Some(_) => Err(refuse(format!(
                    "--tls-cert is given, but {url} is a Unix socket, which needs no certificate"
                ))),
            };
        }
        let no_address = || {
            refuse(format!(
                "`{url}` is no address: it must be http://HOST:PORT, https://HOST:PORT or \
                 unix:///PATH"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| no_address())?;
        let (Some(host), Some(scheme @ ("http" | "https"))) = (uri.host(), uri.scheme_str()) else {
            return Err(no_address());
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match (scheme, tls) {
            ("https", Some(files)) => {
                let name = cli.tls_server_name.clone().unwrap_or_else(|| host.clone());
                let name = ServerName::try_from(name.clone()).map_err(|_| {
                    refuse(format!(
                        "`{name}` is no name that a certificate can have; --tls-server-name \
                         gives another"
                    ))
                })?;
                Some((files, name))
            }
            ("https", None) => {
                return Err(refuse(format!(
                    "{url} requires a certificate: give --tls-cert, --tls-key and --tls-ca"
                )));
            }
            (_, Some(_)) => {
                return Err(refuse(format!(
                    "--tls-cert is given, but {url} does not begin with https://"
                )));
            }
            (_, None) => None,
        };
        let default = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        Ok(Self::Tcp { host, port, tls })
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, tonic::transport::Error> {
        match self {
            Self::Tcp { .. } => Endpoint::from_shared(url.to_owned()),
            Self::Unix(_) => Ok(Endpoint::from_static(ANY_AUTHORITY)),
        }
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Wire>> {
        tokio::time::timeout(ATTEMPT, self.connect())
            .await
            .unwrap_or_else(|_| {
                let message = format!("no answer within {ATTEMPT:?}");
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
            })
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Wire>> {
        let (host, port, tls) = match self {
            Self::Tcp { host, port, tls } => (host, *port, tls),
            Self::Unix(path) => {
                let short = ShortPath::of(path)?;
                return Ok(Box::new(UnixStream::connect(short.as_path()).await?));
            }
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let Some((files, name)) = tls else {
            return Ok(Box::new(stream));
        };
        // Read for each connection, so that a renewed certificate is used from then on.
        let files = files.clone();
        let config = tokio::task::spawn_blocking(move || {
            let identity = files.load().map_err(|error| error.to_string())?;
            identity.client()
        })
        .await?
        .map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(config)
            .connect(name.clone(), stream)
            .await?;
        Ok(Box::new(stream))
    }
}

fn tls_files(cli: &Cli) -> Result<Option<TlsFiles>, AgentError> {
    match (&cli.tls_cert, &cli.tls_key, &cli.tls_ca) {
        (Some(cert), Some(key), Some(ca)) => Ok(Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            ca: ca.clone(),
        })),
        (None, None, None) => Ok(None),
        _ => Err(AgentError::Usage(
            "--tls-cert, --tls-key and --tls-ca belong together: give all three".to_owned(),
        )),
    }
}

/// The standard input of a worker that a coordinator started: a pipe whose other end the
/// coordinator holds open for as long as it lives.
#[derive(Debug)]
pub(crate) struct ParentPipe(Stdin);

impl ParentPipe {
    /// The pipe of this process. Nothing else may read the standard input.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        Self(tokio::io::stdin())
    }

    /// Returns when the coordinator is gone; never without a pipe. May be dropped and called
    /// again.
    pub(crate) async fn closed(pipe: &mut Option<Self>) {
        let Some(pipe) = pipe else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 64];
        while pipe.0.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    fn target(arguments: &[&str]) -> Result<Target, String> {
        let cli = Cli::try_parse_from([&["worker", "--coordinator"], arguments].concat()).unwrap();
        Target::of(&cli).map_err(|error| error.to_string())
    }

    #[test]
    fn address_and_certificates_have_to_fit_together() {
        let Ok(Target::Tcp { host, port, tls }) = target(&["http://[::1]:70"]) else {
            panic!("no TCP address");
        };
        assert_eq!((host.as_str(), port, tls), ("::1", 70, None));
        let socket = target(&["unix:///run/x.sock"]).unwrap();
        assert!(matches!(socket, Target::Unix(path) if path == Path::new("/run/x.sock")));
        let files = ["--tls-cert=c", "--tls-key=k", "--tls-ca=a"];
        let with = |url, more: &[&'static str]| [&[url], &files[..], more].concat();
        let name = |arguments: &[&str]| match target(arguments) {
            Ok(Target::Tcp {
                tls: Some((_, name)),
                ..
            }) => name.to_str().into_owned(),
            other => panic!("no TLS: {other:?}"),
        };
        assert_eq!(name(&with("https://10.0.0.1:7", &[])), "10.0.0.1");
        let other = ["--tls-server-name=trainer.example"];
        assert_eq!(name(&with("https://10.0.0.1", &other)), "trainer.example");
        for (arguments, expected) in [
            (&["https://host:1"][..], "give --tls-cert, --tls-key and"),
            (&with("http://host:1", &[]), "does not begin with https://"),
            (&["https://host:1", "--tls-cert=c"], "give all three"),
            (&with("https://host:1", &["--tls-server-name=a b"]), "`a b`"),
            (&["host:1"], "must be http://HOST:PORT"),
            (&["ftp://host:1"], "must be http://HOST:PORT"),
            (&["unix:run/x.sock"], "unix:///PATH"),
            (&with("unix:///x", &[]), "needs no certificate"),
        ] {
            let message = target(arguments).unwrap_err();
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    }
}
