//! Mutual TLS between coordinator and workers: reads a certificate, its key and the authority
//! from their files, and makes of them what rustls needs on either side. It opens no connection
//! and decides neither who needs TLS nor when files are read again.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

/// gRPC is HTTP/2, and nothing else is offered (RFC 7540, section 3.1).
const ALPN: &[u8] = b"h2";
/// Both ends are of one build, so that nothing older needs to be spoken.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// Larger files are no certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Files that do not make a TLS identity. Each message names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path} of {flag}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} of {flag} {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are each fine but not of one pair.
    #[error(
        "the key in {key} does not belong to the certificate in {cert}; --tls-key and --tls-cert must name one pair"
    )]
    Mismatched {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
}

/// Where an identity lies, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and the authority, leaf first.
    pub cert: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// The authorities whose certificates the other side may show.
    pub ca: PathBuf,
}

/// What the files held at one moment.
#[derive(Debug)]
pub struct TlsIdentity {
    provider: Arc<CryptoProvider>,
    own: Arc<CertifiedKey>,
    authorities: Arc<RootCertStore>,
}

/// The contents of the files, read but not yet understood.
pub struct TlsBytes {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl std::fmt::Debug for TlsBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsBytes(…)")
    }
}

impl TlsBytes {
    /// The sha256 of all, which changes with any of them.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.cert, &self.key, &self.ca] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`], or a file too large to be what its flag says.
    pub fn read(&self) -> Result<TlsBytes, TlsError> {
        Ok(TlsBytes {
            cert: read(&self.cert, "--tls-cert")?,
            key: read(&self.key, "--tls-key")?,
            ca: read(&self.ca, "--tls-ca")?,
        })
    }

    /// Makes an identity of what was read from these files.
    ///
    /// # Errors
    /// A file holds no PEM of its kind, or key and certificate do not belong together.
    pub fn identity(&self, bytes: &TlsBytes) -> Result<TlsIdentity, TlsError> {
        let unusable = |path: &Path, flag, reason: String| TlsError::Unusable {
            path: path.to_owned(),
            flag,
            reason,
        };
        let chain = certificates(&self.cert, "--tls-cert", &bytes.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| {
            let reason = "holds no private key in PEM".to_owned();
            unusable(&self.key, "--tls-key", reason)
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatched {
                cert: self.cert.clone(),
                key: self.key.clone(),
            },
            rustls::Error::InvalidCertificate(error) => {
                let reason = format!("holds a certificate that cannot be used: {error}");
                unusable(&self.cert, "--tls-cert", reason)
            }
            error => {
                let reason = format!("holds a key that cannot be used: {error}");
                unusable(&self.key, "--tls-key", reason)
            }
        })?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&self.ca, "--tls-ca", &bytes.ca)? {
            authorities.add(authority).map_err(|error| {
                let reason = format!("holds a certificate that cannot be used: {error}");
                unusable(&self.ca, "--tls-ca", reason)
            })?;
        }
        Ok(TlsIdentity {
            provider,
            own: Arc::new(own),
            authorities: Arc::new(authorities),
        })
    }

    /// [`TlsFiles::read`] and [`TlsFiles::identity`] in one.
    ///
    /// # Errors
    /// As those.
    pub fn load(&self) -> Result<TlsIdentity, TlsError> {
        self.identity(&self.read()?)
    }
}

impl TlsIdentity {
    /// What a coordinator accepts with: only peers with a certificate of the authorities.
    ///
    /// # Errors
    /// In words; none is known for an identity that could be made.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.authorities),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| error.to_string())?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Own(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the look at a certificate that was since withdrawn.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What a worker connects with: it shows its certificate and accepts only a coordinator
    /// that has one of the authorities for the name it is called by.
    ///
    /// # Errors
    /// In words; none is known for an identity that could be made.
    pub fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| error.to_string())?
            .with_root_certificates(Arc::clone(&self.authorities))
            .with_client_cert_resolver(Arc::new(Own(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The one certificate there is, whoever asks.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Own {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Own {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn read(path: &Path, flag: &'static str) -> Result<Vec<u8>, TlsError> {
    let refuse = |source| TlsError::Unreadable {
        path: path.to_owned(),
        flag,
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(refuse)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refuse)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::Unusable {
            path: path.to_owned(),
            flag,
            reason: "is larger than a mebibyte, so it is not what the flag names".to_owned(),
        });
    }
    Ok(bytes)
}

fn certificates(
    path: &Path,
    flag: &'static str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |reason: String| TlsError::Unusable {
        path: path.to_owned(),
        flag,
        reason,
    };
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| refuse(format!("is not valid PEM: {error}")))?;
    if found.is_empty() {
        return Err(refuse("holds no certificate in PEM".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate that is its own authority, and its key.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_and_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ((cert, key), (_, other_key)) = (pair(), pair());
        let sound = TlsFiles {
            cert: put("cert.pem", &cert),
            key: put("key.pem", &key),
            ca: put("ca.pem", &cert),
        };
        let identity = sound.load().unwrap();
        assert!(identity.server().is_ok() && identity.client().is_ok());

        let changed = |change: &dyn Fn(&mut TlsFiles)| {
            let mut files = sound.clone();
            change(&mut files);
            files.load().unwrap_err().to_string()
        };
        let text = put("text.pem", "not a certificate");
        let broken = put(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        let other = put("other.pem", &other_key);
        let large = put("large.pem", &"x".repeat(2 << 20));
        let missing = folder.path().join("missing.pem");
        for (message, file, flag) in [
            (
                changed(&|f| f.cert = missing.clone()),
                &missing,
                "--tls-cert",
            ),
            (changed(&|f| f.key = missing.clone()), &missing, "--tls-key"),
            (changed(&|f| f.ca = missing.clone()), &missing, "--tls-ca"),
            (changed(&|f| f.cert = text.clone()), &text, "--tls-cert"),
            (changed(&|f| f.cert = broken.clone()), &broken, "--tls-cert"),
            (changed(&|f| f.ca = broken.clone()), &broken, "--tls-ca"),
            (changed(&|f| f.key = text.clone()), &text, "--tls-key"),
            (
                changed(&|f| f.key = f.cert.clone()),
                &sound.cert,
                "--tls-key",
            ),
            (
                changed(&|f| f.cert = f.key.clone()),
                &sound.key,
                "--tls-cert",
            ),
            (changed(&|f| f.ca = f.key.clone()), &sound.key, "--tls-ca"),
            (changed(&|f| f.ca = large.clone()), &large, "--tls-ca"),
            (changed(&|f| f.key = other.clone()), &other, "--tls-key and"),
        ] {
            assert!(message.contains(&file.display().to_string()), "{message}");
            assert!(message.contains(flag), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
