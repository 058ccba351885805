//! Mutual TLS between coordinator and workers: reads a certificate, its key and the authorities from
//! their files, and builds the configurations of rustls for either side. It opens no connection,
//! and decides neither who needs TLS nor when the files are read again.

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
/// Both ends are of one build, so no older version is needed.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why files are not a TLS identity. Each message names the file.
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
    /// A file has the wrong content.
    #[error("{path} of {flag} {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key is not that of the certificate.
    #[error("the key in {key} of --tls-key is not that of the certificate in {cert} of --tls-cert")]
    Mismatched {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
}

/// The files of an identity, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first, without the authority.
    pub cert: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// The authorities that sign the certificates of the other side.
    pub ca: PathBuf,
}

/// A certificate, its key and the authorities, parsed.
#[derive(Debug)]
pub struct TlsIdentity {
    provider: Arc<CryptoProvider>,
    own: Arc<CertifiedKey>,
    authorities: Arc<RootCertStore>,
}

/// The contents of the files, not parsed yet.
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
    /// The sha256 of all three.
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
    /// A file cannot be read or is too large.
    pub fn read(&self) -> Result<TlsBytes, TlsError> {
        Ok(TlsBytes {
            cert: read(&self.cert, "--tls-cert")?,
            key: read(&self.key, "--tls-key")?,
            ca: read(&self.ca, "--tls-ca")?,
        })
    }

    /// Parses what was read from these files.
    ///
    /// # Errors
    /// A file has no PEM of its kind, or the key is not that of the certificate.
    pub fn identity(&self, bytes: &TlsBytes) -> Result<TlsIdentity, TlsError> {
        let unusable = |path: &Path, flag, reason: String| TlsError::Unusable {
            path: path.to_owned(),
            flag,
            reason,
        };
        let chain = certificates(&self.cert, "--tls-cert", &bytes.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| {
            let reason = "contains no private key in PEM".to_owned();
            unusable(&self.key, "--tls-key", reason)
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatched {
                cert: self.cert.clone(),
                key: self.key.clone(),
            },
            rustls::Error::InvalidCertificate(error) => {
                let reason = format!("contains an unusable certificate: {error}");
                unusable(&self.cert, "--tls-cert", reason)
            }
            error => {
                let reason = format!("contains an unusable key: {error}");
                unusable(&self.key, "--tls-key", reason)
            }
        })?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&self.ca, "--tls-ca", &bytes.ca)? {
            authorities.add(authority).map_err(|error| {
                let reason = format!("contains an unusable certificate: {error}");
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
    /// The configuration of a coordinator: it accepts only clients with a certificate that the
    /// authorities signed.
    ///
    /// # Errors
    /// As text; none is known for a parsed identity.
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
        // A resumed session would skip the verification of the client's certificate.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The configuration of a worker: it presents its certificate, and accepts only a coordinator
    /// with one that the authorities signed for the name that it connects to.
    ///
    /// # Errors
    /// As text; none is known for a parsed identity.
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

/// Presents the only certificate to every peer.
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
            reason: "is larger than 1 MiB, which no such file is".to_owned(),
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
        return Err(refuse("contains no certificate in PEM".to_owned()));
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
    fn an_error_names_the_file_and_its_flag() {
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
            (changed(&|f| f.key = other.clone()), &other, "--tls-key is"),
        ] {
            assert!(message.contains(&file.display().to_string()), "{message}");
            assert!(message.contains(flag), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
