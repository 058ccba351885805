//! The join token: a shared secret that a worker shows with every call. It owns its form, its
//! file and its header; who must show one is the coordinator's to decide.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tonic::metadata::{Ascii, MetadataValue};

/// Fewer characters than this can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// A header this long still passes every HTTP/2 limit.
const MAX_TOKEN_BYTES: usize = 4096;
/// Random bytes of a fresh token: as many as the hash it is compared by.
const FRESH_BYTES: usize = 32;
/// What stands before the token in the header (RFC 6750, section 2.1).
const SCHEME: &str = "Bearer ";
/// What stands before the token in the line to a spawned worker.
const LINE: &str = "token ";
/// The longest line that [`Token::from_line`] takes, its end included.
pub const MAX_LINE_BYTES: usize = LINE.len() + MAX_TOKEN_BYTES + 1;

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
    /// The text is no token. It stays unnamed, since it may be most of one.
    #[error("the join token{} {reason}", .path.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display())))]
    Malformed {
        /// Where it came from.
        path: Option<PathBuf>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system gives no random bytes.
    #[error("cannot get random bytes for a join token: {0}")]
    Entropy(getrandom::Error),
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

    /// A token nobody else has: 32 bytes of the kernel's generator in hexadecimal.
    ///
    /// # Errors
    /// [`TokenError::Entropy`] when the system has no such generator.
    pub fn fresh() -> Result<Self, TokenError> {
        let mut bytes = [0; FRESH_BYTES];
        getrandom::fill(&mut bytes).map_err(TokenError::Entropy)?;
        Ok(Self(HEXLOWER.encode(&bytes)))
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

    /// The line by which a launcher hands the token to a worker's standard input.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{LINE}{}\n", self.0)
    }

    /// The token in a [`Token::line`].
    ///
    /// # Errors
    /// [`TokenError::Malformed`] for any other line.
    pub fn from_line(line: &str) -> Result<Self, TokenError> {
        line.strip_prefix(LINE)
            .ok_or(TokenError::Malformed {
                path: None,
                reason: "is missing in the first line of the standard input, where a launcher \
                         puts it",
            })
            .and_then(Self::parse)
    }
}

/// Whether others than the owner may read this file.
#[must_use]
pub fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o044 != 0)
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
    fn header_and_line_carry_the_token_and_nothing_else_passes_for_them() {
        let token = Token::fresh().unwrap();
        assert_ne!(token, Token::fresh().unwrap());
        let header = token.header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(
            Token::digest_of_header(header.as_bytes()),
            Some(token.digest())
        );
        for other in ["", "Bearer", "Basic 0123456789abcdef"] {
            assert_eq!(Token::digest_of_header(other.as_bytes()), None, "{other}");
        }
        assert_ne!(
            Token::digest_of_header(b"bearer 0123456789abcdef"),
            Some(token.digest())
        );
        assert_eq!(Token::from_line(&token.line()).unwrap(), token);
        assert!(Token::from_line("0123456789abcdef0123\n").is_err());
    }
}
