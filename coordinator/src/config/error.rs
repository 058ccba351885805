//! Why a configuration is refused.

use std::path::PathBuf;

/// A configuration that cannot be used. Each message is one line and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file of `--config` is not TOML.
    #[error("{path}, line {line}: not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// The file holds a key that does not exist.
    #[error("{path}: unknown key `{key}`{}", suggestion(.nearest))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as it stands there.
        key: String,
        /// The known key closest to it, where one is close.
        nearest: Option<String>,
    },
    /// A value of the file or the environment has the wrong form.
    #[error("{0}")]
    Value(String),
    /// `layer-lr` is neither a preset nor a list.
    #[error("layer-lr `{value}`: {reason}")]
    LayerLr {
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Values that are well formed but not allowed, or not allowed together.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The effective configuration cannot be written as TOML.
    #[error("the settings cannot be written as TOML: {0}")]
    Unwritable(String),
}

fn suggestion(nearest: &Option<String>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `coordinator --help` lists the known ones".to_owned(),
    }
}
