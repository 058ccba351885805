//! The join token: a shared secret that a worker sends with every call. It owns the form, the
//! file and the header of the token; the coordinator decides which calls need one.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};

/// A shorter token can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// A header of this length still passes every HTTP/2 limit.
const MAX_TOKEN_BYTES: usize = 4096;
/// The scheme in front of the token in the header (RFC 6750, section 2.1).
const SCHEME: &str = "Bearer ";

/// The metadata key that carries the token.
pub const HEADER: &str = "authorization";

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not a token. The message does not quote it, since it may be most of one.
    #[error("the join token{} {reason}", .path.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display())))]
    Malformed {
        /// Where it came from.
        path: Option<PathBuf>,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A secret of [`MIN_TOKEN_BYTES`] to 4,096 visible ASCII characters. `Debug` hides it, and
/// there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token that `text` is, without the white space around it.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it is too short, too long, or unfit for a header.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let reason = if text.len() < MIN_TOKEN_BYTES {
            "is shorter than 16 bytes; `openssl rand -hex 32` makes a good one"
        } else if text.len() > MAX_TOKEN_BYTES {
            "is longer than 4096 bytes"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "must be one line of visible ASCII characters without spaces"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(TokenError::Malformed { path: None, reason })
    }

    /// The token in a file.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        use std::io::Read;
        let refuse = |source| TokenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .map_err(refuse)?
            // White space around the longest token is allowed too.
            .take(2 * MAX_TOKEN_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(refuse)?;
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| match error {
            TokenError::Malformed { reason, .. } => TokenError::Malformed {
                path: Some(path.to_owned()),
                reason,
            },
            other => other,
        })
    }

    /// The value of [`HEADER`], marked so that HTTP/2 neither indexes nor prints it.
    #[must_use]
    pub fn header(&self) -> Option<MetadataValue<Ascii>> {
        // Visible ASCII always is a header; the type cannot say so.
        let mut value = MetadataValue::try_from(format!("{SCHEME}{}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The sha256 of the token, which is what tokens are compared by.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The [`Token::digest`] of the token in a header's value; `None` for another scheme.
    #[must_use]
    pub fn digest_of_header(value: &[u8]) -> Option<[u8; 32]> {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        scheme
            .eq_ignore_ascii_case(SCHEME.as_bytes())
            .then(|| Sha256::digest(token).into())
    }
}

/// Whether others than this user may read this file. A group may, if the file has another owner:
/// Kubernetes lets a process read a secret by its group.
#[must_use]
pub fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|found| {
        let is_owner = found.uid() == rustix::process::geteuid().as_raw();
        is_open(found.mode(), is_owner)
    })
}

fn is_open(mode: u32, is_owner: bool) -> bool {
    mode & 0o004 != 0 || is_owner && mode & 0o040 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_what_is_none_is_refused_without_showing_it() {
        let token = Token::parse("  0123456789abcdef\n").unwrap();
        assert_eq!(token, Token::parse("0123456789abcdef").unwrap());
        assert!(!format!("{token:?}").contains("0123"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, reason) in [
            ("0123456789abcde", "shorter than 16 bytes"),
            ("", "shorter than 16 bytes"),
            ("0123456789 abcdef", "one line of visible ASCII"),
            ("0123456789\nabcdef", "one line of visible ASCII"),
            ("0123456789abcdé€", "one line of visible ASCII"),
            (&"x".repeat(4097), "longer than 4096"),
            (&"x".repeat(1 << 20), "longer than 4096"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Token::read(&path).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
            assert!(message.contains("token"), "{message}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
        let missing = Token::read(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none: No such file"));
    }

    #[test]
    fn a_token_is_for_its_owner_or_a_group_that_this_process_is_in() {
        for (mode, is_owner, open) in [
            (0o600, true, false),
            (0o640, true, true),
            (0o604, true, true),
            (0o440, false, false),
            (0o444, false, true),
        ] {
            assert_eq!(is_open(mode, is_owner), open, "{mode:o} {is_owner}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!open_to_others(file.path()));
        assert!(!open_to_others(Path::new("/no/such/token")));
    }

    #[test]
    fn the_header_carries_the_token_and_no_other_scheme_passes_for_it() {
        let token = Token::parse("0123456789abcdeF").unwrap();
        let header = token.header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(
            Token::digest_of_header(header.as_bytes()),
            Some(token.digest())
        );
        for other in ["", "Bearer", "Basic 0123456789abcdeF"] {
            assert_eq!(Token::digest_of_header(other.as_bytes()), None, "{other}");
        }
        assert_ne!(
            Token::digest_of_header(b"bearer 0123456789abcdef"),
            Some(token.digest())
        );
    }
}
