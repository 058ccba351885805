//! `coordinator fetch`: brings the public data set and the pretrained weights onto this machine.
//!
//! Owns the order of the steps (present? download, verify, unpack) and the places where results
//! lie. Must not know how bytes travel (`download`), how archives are opened (`extract`) or
//! where files come from (`sources`). A result appears under its final name only when it is
//! whole: everything before that happens under names that nothing else reads.

mod checksum;
mod console;
mod download;
mod error;
mod extract;
mod part;
mod sources;

#[cfg(test)]
mod tests;

pub use error::FetchError;
pub use sources::Target;

use console::Console;
use download::Patience;
use extract::Limits;
use sources::Source;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// What stands after `coordinator fetch` on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct FetchArgs {
    /// What to fetch
    #[arg(value_enum)]
    pub what: Target,

    /// Take the file from this address, for example a mirror
    /// (also FINETUNE_FETCH_CALTECH101_URL, FINETUNE_FETCH_WEIGHTS_URL)
    #[arg(long)]
    pub url: Option<String>,

    /// Expect this SHA-256, or its first 8 or more hexadecimal digits
    /// (also FINETUNE_FETCH_CALTECH101_SHA256, FINETUNE_FETCH_WEIGHTS_SHA256)
    #[arg(long)]
    pub sha256: Option<String>,

    /// The folder that holds `caltech101/` and `weights/`
    #[arg(
        long,
        value_name = "DIR",
        default_value = "data",
        env = "FINETUNE_DATA_DIR"
    )]
    pub data_dir: PathBuf,

    /// Print nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
}

impl FetchArgs {
    /// Fetches what the command line asked for; see [`run`].
    pub fn run(self) -> Result<PathBuf, FetchError> {
        let Self {
            what,
            url,
            sha256,
            data_dir,
            quiet,
        } = self;
        run(
            what,
            FetchOptions {
                url,
                sha256,
                directory: data_dir,
                quiet,
            },
        )
    }
}

/// How [`run`] departs from the table of sources.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Address to use in place of the table's and the environment's.
    pub url: Option<String>,
    /// SHA-256 (or 8 or more leading hexadecimal digits of it) in place of the table's checksum.
    pub sha256: Option<String>,
    /// Folder under which the results lie: `caltech101/` and `weights/`.
    pub directory: PathBuf,
    /// Print nothing; errors are returned either way.
    pub quiet: bool,
}

/// Fetches `what` and returns where it lies: the folder that holds `101_ObjectCategories/`, or
/// the weights file. What is already there is left alone. Progress goes to standard error.
///
/// Blocks for as long as the transfer takes: call it outside an async runtime.
///
/// # Errors
/// Every error names the address or file, what was wrong with it and the way out. A transfer that
/// failed on the network keeps what arrived, so that the next call goes on from there; a wrong
/// checksum discards it. An archive that is damaged, or that tries to write outside its folder,
/// leaves nothing unpacked.
pub fn run(what: Target, options: FetchOptions) -> Result<PathBuf, FetchError> {
    let FetchOptions {
        url,
        sha256,
        directory,
        quiet,
    } = options;
    let source = Source::resolve(what, url, sha256, |name| std::env::var(name).ok())?;
    obtain(
        &source,
        &directory,
        &Patience::default(),
        &Limits::default(),
        &Console::new(quiet),
    )
}

/// [`run`] with every knob explicit.
fn obtain(
    source: &Source,
    directory: &Path,
    patience: &Patience,
    limits: &Limits,
    console: &Console,
) -> Result<PathBuf, FetchError> {
    let place = directory.join(source.target.folder());
    std::fs::create_dir_all(&place).map_err(|error| FetchError::storage(&place, error))?;
    let _lock = lock(&place)?;
    let file = place.join(source.file_name);
    match source.target {
        Target::Weights => {
            ensure_file(source, &file, patience, console)?;
            Ok(file)
        }
        Target::Caltech101 => {
            let folder = place.join(sources::CALTECH101_FOLDER);
            if is_filled(&folder) {
                console.say(&format!(
                    "{} is already there: nothing to do",
                    folder.display()
                ));
                return Ok(place);
            }
            ensure_file(source, &file, patience, console)?;
            extract::unpack(&file, &place, limits, console)?;
            // The archive has served; a copy that cannot be removed harms nothing.
            let _ = std::fs::remove_file(&file);
            console.say(&format!("unpacked to {}", folder.display()));
            Ok(place)
        }
    }
}

/// Makes sure that `file` is there with the expected checksum.
fn ensure_file(
    source: &Source,
    file: &Path,
    patience: &Patience,
    console: &Console,
) -> Result<(), FetchError> {
    if !file.exists() {
        download::download(source, file, patience, console)?;
        console.say(&format!(
            "{} is complete, {}",
            file.display(),
            source.checksum
        ));
        return Ok(());
    }
    let actual = source
        .checksum
        .of_file(file)
        .map_err(|e| FetchError::storage(file, e))?;
    if !source.checksum.matches(&actual) {
        return Err(FetchError::PresentButDifferent {
            path: file.to_owned(),
            expected: source.checksum.to_string(),
            actual,
        });
    }
    console.say(&format!(
        "{} is already there, {}",
        file.display(),
        source.checksum
    ));
    Ok(())
}

/// Keeps a second fetch out of `place` until the returned handle is dropped (or the process ends).
fn lock(place: &Path) -> Result<Option<File>, FetchError> {
    let handle = File::open(place).map_err(|error| FetchError::storage(place, error))?;
    match handle.try_lock() {
        Ok(()) => Ok(Some(handle)),
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy {
            directory: place.to_owned(),
        }),
        // Some network file systems cannot lock a folder: the checksum still guards the result.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Whether `folder` is a directory with something in it.
fn is_filled(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
