//! How a worker reaches its coordinator and proves who it is: address, TLS and join token. It
//! makes one connection at a time; `session` has the patience, and what is said on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::tls::TlsFiles;
use common::token::{HEADER, MAX_LINE_BYTES, Token, TokenError};
use hyper_util::rt::TokioIo;
use proto::MAX_MESSAGE_BYTES;
use proto::v1::trainer_client::TrainerClient;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Stdin};
use tokio::net::TcpStream;
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
/// A launcher writes the token before anything else can happen.
const TOKEN_WAIT: Duration = Duration::from_secs(10);

/// A client whose calls carry the join token, where there is one.
pub type Client = TrainerClient<InterceptedService<Channel, Bearer>>;

/// Puts the token into each call.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

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

/// Where to, and with which certificate.
#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsFiles, ServerName<'static>)>,
}

/// A coordinator to connect to, as often as it takes.
#[derive(Debug)]
pub struct Coordinator {
    url: String,
    target: Arc<Target>,
    given: Option<Token>,
    token_file: Option<PathBuf>,
}

impl Coordinator {
    /// The coordinator that the flags name. `given` is the token from a launcher; it stands above
    /// that of `cli.token_file`.
    ///
    /// # Errors
    /// [`AgentError::Usage`] for flags that do not fit together and files that cannot be
    /// used.
    pub fn of(cli: &Cli, given: Option<Token>) -> Result<Self, AgentError> {
        let coordinator = Self {
            url: cli.coordinator.clone(),
            target: Arc::new(Target::of(cli)?),
            given,
            token_file: cli.token_file.clone(),
        };
        if let Some((files, _)) = &coordinator.target.tls {
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
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes one attempt to connect. The files are read anew, for this connection and for those
    /// that the client makes when it breaks.
    ///
    /// # Errors
    /// The innermost cause in words; another attempt may succeed.
    pub async fn client(&self) -> Result<Client, String> {
        let token = self.token().map_err(|error| error.to_string())?;
        let endpoint = Endpoint::from_shared(self.url.clone())
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

    /// Where its name leads first.
    pub async fn address(&self) -> Option<SocketAddr> {
        let target = (self.target.host.as_str(), self.target.port);
        tokio::net::lookup_host(target).await.ok()?.next()
    }

    fn token(&self) -> Result<Option<Token>, TokenError> {
        match (&self.given, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => Token::read(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Why the connection of a call broke; `None` when the coordinator itself answered with this
/// status. What breaks has a cause below the status, what is answered has none.
pub fn broken(status: &Status) -> Option<String> {
    let source = std::error::Error::source(status)?;
    Some(format!(
        "the connection was closed: {}; if that goes on, check that the address has the scheme \
         that the coordinator prints, http:// or https://, and that each side's --tls-ca signed \
         the other's certificate",
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
        let uri: Uri = url
            .parse()
            .map_err(|error| refuse(format!("`{url}` is no address: {error}")))?;
        let (Some(host), Some(scheme @ ("http" | "https"))) = (uri.host(), uri.scheme_str()) else {
            return Err(refuse(format!(
                "`{url}` is no address: it must be http://HOST:PORT or https://HOST:PORT"
            )));
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match (&cli.tls_cert, &cli.tls_key, &cli.tls_ca) {
            (Some(cert), Some(key), Some(ca)) => Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
                ca: ca.clone(),
            }),
            (None, None, None) => None,
            _ => {
                return Err(refuse(
                    "--tls-cert, --tls-key and --tls-ca belong together: give all three".to_owned(),
                ));
            }
        };
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
                    "{url} takes a certificate: give --tls-cert, --tls-key and --tls-ca"
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
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(default),
            tls,
        })
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Wire>> {
        let attempt = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let Some((files, name)) = &self.tls else {
                return Ok(Box::new(stream) as Box<dyn Wire>);
            };
            // Read for each connection, so that a renewed certificate is shown from then on.
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
            Ok(Box::new(stream) as Box<dyn Wire>)
        };
        tokio::time::timeout(ATTEMPT, attempt)
            .await
            .unwrap_or_else(|_| {
                let message = format!("no answer within {ATTEMPT:?}");
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
            })
    }
}

/// The launcher at the other end of the standard input, which says one line and then holds it
/// open for as long as it lives.
#[derive(Debug)]
pub struct Launcher(Stdin);

impl Launcher {
    /// The launcher of this process. Nothing else may read the standard input.
    #[must_use]
    pub fn of_process() -> Self {
        Self(tokio::io::stdin())
    }

    /// The token that it hands over, once; `None` without a launcher.
    ///
    /// # Errors
    /// It is gone, or says something else.
    pub async fn token(launcher: &mut Option<Self>) -> Result<Option<Token>, AgentError> {
        let Some(launcher) = launcher else {
            return Ok(None);
        };
        let line = tokio::time::timeout(TOKEN_WAIT, first_line(&mut launcher.0))
            .await
            .unwrap_or_default();
        if line.is_empty() {
            return Err(AgentError::Broken("its launcher is gone".to_owned()));
        }
        Token::from_line(&line)
            .map(Some)
            .map_err(|error| AgentError::Usage(error.to_string()))
    }

    /// Returns when it is gone; never without one. May be dropped and called again.
    pub async fn gone(launcher: &mut Option<Self>) {
        let Some(launcher) = launcher else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 64];
        while launcher
            .0
            .read(&mut buffer)
            .await
            .is_ok_and(|read| read > 0)
        {}
    }
}

/// A line byte by byte, so that nothing after it is taken; what there is of one that does not end.
async fn first_line(input: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while line.len() < MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        match input.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn target(arguments: &[&str]) -> Result<Target, String> {
        let cli = Cli::try_parse_from([&["worker", "--coordinator"], arguments].concat()).unwrap();
        Target::of(&cli).map_err(|error| error.to_string())
    }

    #[test]
    fn address_and_certificates_have_to_fit_together() {
        let plain = target(&["http://[::1]:70"]).unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("::1", 70));
        let files = ["--tls-cert=c", "--tls-key=k", "--tls-ca=a"];
        let with = |url, more: &[&'static str]| [&[url], &files[..], more].concat();
        let (_, name) = target(&with("https://10.0.0.1:7", &[]))
            .unwrap()
            .tls
            .unwrap();
        assert_eq!(name.to_str(), "10.0.0.1");
        let other = ["--tls-server-name=trainer.example"];
        let (_, name) = target(&with("https://10.0.0.1", &other))
            .unwrap()
            .tls
            .unwrap();
        assert_eq!(name.to_str(), "trainer.example");
        for (arguments, expected) in [
            (&["https://host:1"][..], "give --tls-cert, --tls-key and"),
            (&with("http://host:1", &[]), "does not begin with https://"),
            (&["https://host:1", "--tls-cert=c"], "give all three"),
            (&with("https://host:1", &["--tls-server-name=a b"]), "`a b`"),
            (&["host:1"], "must be http://HOST:PORT"),
            (&["ftp://host:1"], "must be http://HOST:PORT"),
        ] {
            let message = target(arguments).unwrap_err();
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    }

    #[tokio::test]
    async fn the_launchers_line_is_read_and_not_what_follows() {
        let token = Token::fresh().unwrap();
        let said = token.line() + "more\n";
        let mut input = said.as_bytes();
        let line = first_line(&mut input).await;
        assert_eq!(Token::from_line(&line).unwrap(), token);
        assert_eq!(input, b"more\n");
        let endless = vec![b'x'; MAX_LINE_BYTES * 2];
        assert_eq!(first_line(&mut &endless[..]).await.len(), MAX_LINE_BYTES);
        assert_eq!(first_line(&mut &b""[..]).await, "");
    }
}
