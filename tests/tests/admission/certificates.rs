//! Certificate authorities and certificates for one test.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// The address of the first host of a `Network`.
pub(crate) const HOST: &str = "10.213.0.1";

/// A certificate authority.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a certificate for loopback and [`HOST`], its key and the certificate of the authority
    /// into `folder`; the flags that name the three files are returned.
    pub(crate) fn issue(&self, folder: &Path) -> [String; 3] {
        let names = ["127.0.0.1", "localhost", HOST].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        [
            ("cert", certificate.pem()),
            ("key", key.serialize_pem()),
            ("ca", self.certificate.clone()),
        ]
        .map(|(name, text)| {
            let path = folder.join(format!("{name}.pem"));
            std::fs::write(&path, text).unwrap();
            format!("--tls-{name}={}", path.display())
        })
    }
}

/// Connects without a certificate; the error is returned as text.
pub(crate) fn anonymous(address: &str, trusted: &Authority) -> String {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client =
        ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    let mut stream = Stream::new(&mut client, &mut socket);
    let mut answer = [0; 1];
    match std::io::Read::read(&mut stream, &mut answer) {
        Ok(read) => format!("{read} bytes"),
        Err(error) => error.to_string(),
    }
}
