//! Merges file, environment and flags into one layer and remembers where each value came from.
//! Knows precedence and spelling. It decides nothing that all sources leave open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat, Source, ValueKind};

use super::{ConfigError, Settings};

/// What the variables of this program start with.
const PREFIX: &str = "FINETUNE_";
/// Variables with the prefix that are not settings: those of the worker, of `fetch`, and the file.
const RESERVED: [&str; 9] = [
    "FINETUNE_TLS_SERVER_NAME",
    "FINETUNE_COORDINATOR",
    "FINETUNE_CONFIG",
    "FINETUNE_LOCAL_RANK",
    "FINETUNE_DATA_DIR",
    "FINETUNE_FETCH_CALTECH101_URL",
    "FINETUNE_FETCH_CALTECH101_SHA256",
    "FINETUNE_FETCH_WEIGHTS_URL",
    "FINETUNE_FETCH_WEIGHTS_SHA256",
];

/// Which source a value came from, the command line excepted: clap checks what it says.
#[derive(Debug, Clone, Copy)]
enum Origin {
    File,
    Environment,
}

/// Everything that a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// Variables, of which those with the prefix `FINETUNE_` count.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line says.
    pub flags: Settings,
    /// What relative paths are relative to when the usual data and weights are looked for;
    /// empty means the working directory.
    pub root: PathBuf,
}

impl Sources {
    /// The process's own environment with these flags and this file.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Settings) -> Self {
        Self {
            file,
            environment: std::env::vars_os().collect(),
            flags,
            root: PathBuf::new(),
        }
    }
}

/// One layer made of all, and what the user should know about the sources.
pub(super) fn merge(sources: &Sources) -> Result<(Settings, Vec<String>), ConfigError> {
    let mut origins = BTreeMap::new();
    let mut notes = Vec::new();
    let mut builder = Config::builder();

    if let Some(path) = &sources.file {
        for key in file_keys(path)? {
            origins.insert(key, Origin::File);
        }
        builder = builder.add_source(File::from(path.clone()).format(FileFormat::Toml));
    }

    let known = known_keys();
    let mut variables = std::collections::HashMap::new();
    for (name, value) in &sources.environment {
        let Some((name, value)) = readable(name, value)? else {
            continue;
        };
        let key = name[PREFIX.len()..].to_lowercase().replace('_', "-");
        if known.contains(&key) {
            origins.insert(key.clone(), Origin::Environment);
            variables.insert(key, value.to_owned());
        } else if let Some(nearest) = nearest(&key, &known) {
            // Only a note: orchestrators set variables of their own with any prefix.
            notes.push(format!(
                "ignoring the variable {name}; did you mean {PREFIX}{}?",
                nearest.to_uppercase().replace('-', "_")
            ));
        }
    }
    builder = builder.add_source(Environment::default().source(Some(variables)));

    let flags = Config::try_from(&sources.flags).and_then(|flags| flags.collect());
    for (key, value) in flags.map_err(value_error)? {
        if value.kind != ValueKind::Nil {
            origins.remove(&key);
            builder = builder.set_override(key, value).map_err(value_error)?;
        }
    }
    let settings = builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| place(error, &origins, sources.file.as_deref()))?;
    Ok((settings, notes))
}

/// A variable that may be a setting, as text. An empty one counts as absent: compose files pass
/// unset variables on as empty ones.
fn readable<'a>(
    name: &'a OsString,
    value: &'a OsString,
) -> Result<Option<(&'a str, &'a str)>, ConfigError> {
    let ours = name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    let reserved = RESERVED.iter().any(|reserved| name == *reserved);
    if !ours || reserved || value.is_empty() {
        return Ok(None);
    }
    match (name.to_str(), value.to_str()) {
        (Some(name), Some(value)) => Ok(Some((name, value))),
        _ => Err(ConfigError::Value(format!(
            "the variable {} is not valid UTF-8; correct or unset it",
            name.display()
        ))),
    }
}

/// The keys of the file, refused where unknown.
fn file_keys(path: &Path) -> Result<Vec<String>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start.min(text.len()));
        ConfigError::Syntax {
            path: path.to_owned(),
            line: text.as_bytes()[..offset]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1,
            message: error.message().replace('\n', ", "),
        }
    })?;
    let known = known_keys();
    for key in table.keys() {
        if !known.contains(key) {
            let nearest = nearest(&key.to_lowercase().replace('_', "-"), &known);
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                nearest,
            });
        }
    }
    Ok(table.into_iter().map(|(key, _)| key).collect())
}

/// Every key, taken from the flags so that no second list can differ from them.
fn known_keys() -> Vec<String> {
    <Settings as clap::Args>::augment_args(clap::Command::new("keys"))
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

fn nearest(key: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.clone())
}

/// Says where a bad value stands, which the library does for some kinds of value only.
fn place(
    error: config::ConfigError,
    origins: &BTreeMap<String, Origin>,
    file: Option<&Path>,
) -> ConfigError {
    use config::ConfigError::{At, Type};
    let message = error.to_string().replace('\n', " ");
    let key = match &error {
        Type {
            key, origin: None, ..
        }
        | At {
            key, origin: None, ..
        } => key.as_deref(),
        _ => None,
    };
    let place = match key.and_then(|key| origins.get(key)) {
        Some(Origin::File) => {
            file.map_or_else(String::new, |path| format!(" in {}", path.display()))
        }
        Some(Origin::Environment) => " in the environment".to_owned(),
        _ => String::new(),
    };
    ConfigError::Value(message + &place)
}

fn value_error(error: config::ConfigError) -> ConfigError {
    ConfigError::Value(error.to_string().replace('\n', " "))
}
