//! How often a checkpoint is taken, in the words of flags and files.

use std::fmt;
use std::str::FromStr;

use super::ConfigError;

/// When a checkpoint is taken, beside the one after each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// At no other time.
    Epoch,
    /// After so many steps, at least 1.
    Steps(u32),
    /// After so many seconds, at least 1.
    Seconds(u32),
}

impl FromStr for CheckpointEvery {
    type Err = ConfigError;

    /// # Errors
    /// Text that is none of `epoch`, a number of steps, a number of seconds with an `s`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0);
        let parsed = match text.strip_suffix('s') {
            _ if text == "epoch" => Some(Self::Epoch),
            Some(seconds) => number(seconds).map(Self::Seconds),
            None => number(text).map(Self::Steps),
        };
        parsed.ok_or_else(|| {
            ConfigError::Invalid(vec![format!(
                "checkpoint-every `{text}` is none of `epoch`, a number of steps like `50`, \
                 or of seconds like `30s`"
            )])
        })
    }
}

impl fmt::Display for CheckpointEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch => f.write_str("epoch"),
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nonsense_is_named() {
        for text in ["epoch", "50", "30s"] {
            let parsed: CheckpointEvery = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["0", "0s", "s", "-1", "5m", "", "epochs"] {
            let error = text.parse::<CheckpointEvery>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
