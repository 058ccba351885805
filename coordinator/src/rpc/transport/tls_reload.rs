//! The TLS identity of the listener. It reads the files again for each connection, so that a
//! renewed certificate applies to new connections while open ones stay. It accepts none itself.

use std::sync::{Arc, Mutex, PoisonError};

use common::tls::{TlsBytes, TlsFiles};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::ServerConfig;

use crate::rpc::access::AccessError;

#[derive(Debug)]
pub(in crate::rpc) struct Renewal {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The digest of the last content of the files, usable or not.
    seen: [u8; 32],
}

impl Renewal {
    /// Reads the files for the first time.
    pub(in crate::rpc) fn new(files: TlsFiles) -> Result<Self, AccessError> {
        let bytes = files.read()?;
        let config = server(&files, &bytes)?;
        let loaded = Mutex::new(Loaded {
            config,
            seen: bytes.digest(),
        });
        Ok(Self { files, loaded })
    }

    /// The configuration for a handshake now. Reads the files, which are small and cheaper than
    /// the handshake itself: no clock resolution, link or lost notification can hide a change.
    /// Files that cannot be used leave the former configuration, with one warning.
    pub(in crate::rpc) fn current(&self) -> Arc<ServerConfig> {
        let read = self.files.read();
        let seen = match &read {
            Ok(bytes) => bytes.digest(),
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if seen != loaded.seen {
            loaded.seen = seen;
            match read
                .map_err(AccessError::from)
                .and_then(|bytes| server(&self.files, &bytes))
            {
                Ok(config) => {
                    loaded.config = config;
                    tracing::info!(
                        "the certificate in {} was renewed",
                        self.files.cert.display()
                    );
                }
                Err(error) => tracing::warn!(
                    "the certificate in use is kept, because the new one cannot be used: {error}"
                ),
            }
        }
        Arc::clone(&loaded.config)
    }
}

fn server(files: &TlsFiles, bytes: &TlsBytes) -> Result<Arc<ServerConfig>, AccessError> {
    files
        .identity(bytes)?
        .server()
        .map_err(AccessError::Unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &std::path::Path) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
            ca: folder.join("ca.pem"),
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.ca, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_change_is_taken_over_at_once_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path());
        let renewal = Renewal::new(files.clone()).unwrap();
        let first = renewal.current();
        assert!(Arc::ptr_eq(&first, &renewal.current()));

        let key = std::fs::read(&files.key).unwrap();
        write(folder.path());
        let renewed_key = std::fs::read(&files.key).unwrap();
        // As in the middle of a renewal: the certificate is new, the key is not.
        std::fs::write(&files.key, key).unwrap();
        assert!(Arc::ptr_eq(&first, &renewal.current()));
        std::fs::remove_file(&files.key).unwrap();
        assert!(Arc::ptr_eq(&first, &renewal.current()));
        std::fs::write(&files.key, renewed_key).unwrap();
        let second = renewal.current();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &renewal.current()));
    }
}
