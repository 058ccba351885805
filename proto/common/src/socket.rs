//! Addresses of Unix sockets: `unix:///absolute/path`, as gRPC writes them, and the way around
//! the limit of their length. It opens no socket.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

const SCHEME: &str = "unix:";

/// The path that a URL of the scheme `unix` names: `unix:///run/x.sock` or `unix:/run/x.sock`.
/// `None` for another scheme, and for a path that is not absolute.
#[must_use]
pub fn path_of(url: &str) -> Option<&Path> {
    let path = url.strip_prefix(SCHEME)?;
    // An authority stands between two slashes and the path; only an empty one makes sense.
    let path = path
        .strip_prefix("//")
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path);
    (path.starts_with('/') && !path.starts_with("//")).then(|| Path::new(path))
}

/// The URL of the socket at `path`; `None` when the path is not absolute or not UTF-8.
#[must_use]
pub fn url_of(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|text| text.starts_with('/'))?;
    Some(format!("{SCHEME}//{text}"))
}

/// A path of at most 107 bytes that leads to a socket, for as long as this value lives. The
/// kernel takes no more bytes (unix(7)); a longer path goes through a descriptor of its folder
/// in `/proc/self/fd`.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl ShortPath {
    /// A short path to the socket at `path`, which need not exist.
    ///
    /// # Errors
    /// The path is too long and its folder cannot be opened, or it has no file name.
    pub fn of(path: &Path) -> io::Result<Self> {
        if SocketAddr::from_pathname(path).is_ok() {
            return Ok(Self {
                path: path.to_owned(),
                _folder: None,
            });
        }
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let name: &OsStr = path.file_name().ok_or_else(invalid)?;
        let folder = File::open(path.parent().ok_or_else(invalid)?)?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        Ok(Self {
            path: through.join(name),
            _folder: Some(folder),
        })
    }

    /// The path for `bind` or `connect`.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn urls_and_paths_lead_to_each_other() {
        let path = Path::new("/run/a b/workers.sock");
        let url = url_of(path).unwrap();
        assert_eq!(url, "unix:///run/a b/workers.sock");
        assert_eq!(path_of(&url), Some(path));
        assert_eq!(path_of("unix:/run/x"), Some(Path::new("/run/x")));
        for other in [
            "unix:x",
            "unix://host/x",
            "unix:",
            "unix://",
            "http://h:1",
            "/run/x",
            "unix:////x",
        ] {
            assert_eq!(path_of(other), None, "{other}");
        }
        assert_eq!(url_of(Path::new("run/x")), None);
    }

    #[test]
    fn a_socket_is_reached_however_long_its_path_is() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["short", &"long".repeat(50)] {
            let path = root.path().join(folder).join("x.sock");
            assert!(ShortPath::of(&path).is_err() || folder == "short");
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(ShortPath::of(&path).unwrap().as_path()).unwrap();
            assert!(path.exists());
            UnixStream::connect(ShortPath::of(&path).unwrap().as_path()).unwrap();
            drop(listener);
        }
    }
}
