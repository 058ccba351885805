//! How often a checkpoint is taken, in the words of flags and files.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_seconds_and_epochs_are_told_apart_and_nonsense_is_named() {
        for (text, every) in [
            ("epoch", CheckpointEvery::Epoch),
            ("50", CheckpointEvery::Steps(50)),
            ("30s", CheckpointEvery::Seconds(30)),
        ] {
            assert_eq!(text.parse::<CheckpointEvery>().unwrap(), every);
        }
        for text in ["0", "0s", "s", "-1", "5m", "", "epochs"] {
            let error = text.parse::<CheckpointEvery>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
