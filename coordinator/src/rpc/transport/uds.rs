//! The Unix socket in the run directory, through which the workers that the coordinator starts
//! connect. Its path is the same for each coordinator of the run, so that workers that outlive
//! one find the next. It accepts no connection itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::socket::{ShortPath, url_of};
use tokio::net::UnixListener;

use crate::net::bind::BindError;

/// Its name in the run directory.
pub const WORKER_SOCKET: &str = "workers.sock";

/// The file of a socket that this process listens on. Dropping it removes the file.
#[derive(Debug)]
pub struct WorkerSocket {
    path: PathBuf,
    url: String,
}

impl WorkerSocket {
    /// Listens on the socket of the run directory `run_dir`, with mode 0600. The caller holds the
    /// lock of the directory: a socket that is there was left by a coordinator that is gone. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// The directory is gone, its path is not UTF-8, or its file system has no sockets.
    pub fn bind(run_dir: &Path) -> Result<(Self, UnixListener), BindError> {
        let refuse = |source| BindError::Socket {
            path: run_dir.join(WORKER_SOCKET),
            source,
        };
        let path = run_dir.canonicalize().map_err(refuse)?.join(WORKER_SOCKET);
        let url = url_of(&path).ok_or_else(|| {
            refuse(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "the path is not UTF-8",
            ))
        })?;
        let short = ShortPath::of(&path).map_err(refuse)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(refuse(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(short.as_path()).map_err(refuse)?;
        let socket = Self { path, url };
        // Until this line the mode is that of the umask; the acceptor checks the user anyway.
        std::fs::set_permissions(&socket.path, PermissionsExt::from_mode(0o600)).map_err(refuse)?;
        Ok((socket, listener))
    }

    /// What a worker of this machine connects to: `unix:///RUN_DIR/workers.sock`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for WorkerSocket {
    fn drop(&mut self) {
        // It fails when the run directory was removed meanwhile.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_coordinator_of_a_run_has_the_same_socket_for_its_user_alone() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = root.path().join("run".repeat(40));
        std::fs::create_dir(&run_dir).unwrap();
        let (first, listener) = WorkerSocket::bind(&run_dir).unwrap();
        let url = first.url().to_owned();
        let path = common::socket::path_of(&url).unwrap().to_owned();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // As after a kill: the file stays, and nothing listens.
        std::mem::forget(first);
        drop(listener);
        assert!(path.exists());
        let (second, listener) = WorkerSocket::bind(&run_dir).unwrap();
        assert_eq!(second.url(), url);
        let short = ShortPath::of(&path).unwrap();
        let (connected, accepted) = tokio::join!(
            tokio::net::UnixStream::connect(short.as_path()),
            listener.accept()
        );
        assert!(connected.is_ok() && accepted.is_ok());
        drop(second);
        assert!(!path.exists());
        let error = WorkerSocket::bind(&root.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("--run-dir"), "{error}");
    }
}
