//! How often a checkpoint is taken, in the words of flags and files.

use coordinator_core::run::Cadence;

use super::ConfigError;

/// # Errors
/// Text that is none of `epoch`, a number of steps, a number of seconds with an `s`.
pub(super) fn parse(text: &str) -> Result<Cadence, ConfigError> {
    let number = |digits: &str| digits.parse().ok().filter(|number: &u32| *number > 0);
    let parsed = match text.strip_suffix('s') {
        _ if text == "epoch" => Some(Cadence::EpochsOnly),
        Some(seconds) => number(seconds).map(|seconds| Cadence::Seconds(seconds.into())),
        None => number(text).map(Cadence::Steps),
    };
    parsed.ok_or_else(|| {
        ConfigError::Invalid(vec![format!(
            "checkpoint-every `{text}` is none of `epoch`, a number of steps like `50`, or of \
             seconds like `30s`"
        )])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_seconds_and_epochs_are_told_apart_and_nonsense_is_named() {
        for (text, every) in [
            ("epoch", Cadence::EpochsOnly),
            ("50", Cadence::Steps(50)),
            ("30s", Cadence::Seconds(30.0)),
        ] {
            assert_eq!(parse(text).unwrap(), every);
        }
        for text in ["0", "0s", "s", "-1", "5m", "", "epochs"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
