//! `coordinator fetch`: brings the public data set and the pretrained weights onto this machine.
//!
//! Owns the order of the steps (present? download, verify, unpack) and where the results lie. A
//! result appears under its final name only when it is complete and its checksum is right; until
//! then it has a name that nothing else reads. The checksum is what protects the result, so
//! neither the server nor a half of a download needs to be trusted.

mod download;
mod extract;
mod sources;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Error, anyhow, bail};

use download::Client;
use sources::Source;
pub use sources::Target;

/// Arguments of `coordinator fetch`.
#[derive(Debug, Clone, clap::Args)]
pub struct FetchArgs {
    /// What to fetch
    #[arg(value_enum)]
    pub what: Target,

    /// Address to fetch from, for example of a mirror
    /// (also FINETUNE_FETCH_CALTECH101_URL, FINETUNE_FETCH_WEIGHTS_URL)
    #[arg(long)]
    pub url: Option<String>,

    /// SHA-256 to expect, or its first 8 or more hexadecimal digits
    /// (also FINETUNE_FETCH_CALTECH101_SHA256, FINETUNE_FETCH_WEIGHTS_SHA256)
    #[arg(long)]
    pub sha256: Option<String>,

    /// Folder that holds `caltech101/` and `weights/`
    #[arg(
        long,
        value_name = "DIR",
        default_value = "data",
        env = "FINETUNE_DATA_DIR"
    )]
    pub data_dir: PathBuf,

    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

impl FetchArgs {
    /// Fetches what the command line asked for and returns where it lies: the folder that holds
    /// `101_ObjectCategories/`, or the weights file. What is there already stays. Blocks during
    /// the transfer: call it outside of an async runtime.
    ///
    /// # Errors
    /// A transfer that failed on the network keeps what arrived, so that the next call continues
    /// there; a wrong checksum discards it. A damaged archive leaves nothing unpacked.
    pub fn run(self) -> Result<PathBuf, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let source = Source::resolve(self.what, self.url, self.sha256, environment)?;
        obtain(&source, &self.data_dir, &Client::default(), self.quiet)
    }
}

fn obtain(
    source: &Source,
    data_dir: &Path,
    client: &Client,
    quiet: bool,
) -> Result<PathBuf, Error> {
    let say = |line: String| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let place = data_dir.join(source.target.folder());
    std::fs::create_dir_all(&place).map_err(unwritable(&place))?;
    let _lock = lock(&place)?;
    let file = place.join(source.file_name);
    let images = place.join(sources::CALTECH101_FOLDER);
    let is_archive = source.target == Target::Caltech101;
    if is_archive && is_filled(&images) {
        say(format!("{} is there already", images.display()));
        return Ok(place);
    }
    if file.exists() {
        if let Some(wrong) = source.mismatch(&file)? {
            let file = file.display();
            bail!("{file} {wrong}; remove it and fetch again, or pass --sha256 if it is right");
        }
        say(format!("{} is there already", file.display()));
    } else {
        say(format!("fetching {}", source.url));
        download::download(source, &file, client, quiet)?;
        say(format!(
            "{} is complete, {}",
            file.display(),
            source.checksum
        ));
    }
    if !is_archive {
        return Ok(file);
    }
    extract::unpack(&file, &place)?;
    // A copy that cannot be removed harms nothing.
    let _ = std::fs::remove_file(&file);
    say(format!("unpacked to {}", images.display()));
    Ok(place)
}

/// Keeps a second fetch out of `place` until the handle is dropped.
fn lock(place: &Path) -> Result<Option<File>, Error> {
    let handle = File::open(place).map_err(unwritable(place))?;
    match handle.try_lock() {
        Ok(()) => Ok(Some(handle)),
        Err(TryLockError::WouldBlock) => bail!(
            "another fetch writes to {}: wait for it to end",
            place.display()
        ),
        // Some network file systems cannot lock a folder; the checksum still guards the result.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Whether `folder` is a directory with something in it.
fn is_filled(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// For `map_err`, where a local file or folder cannot be used.
fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| {
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
            _ => "check its permissions",
        };
        anyhow!("cannot write {path}: {error}; {advice}, or choose another folder with --data-dir")
    }
}

/// Whether `error` comes from the disk alone: reading an archive or a connection has no such error.
fn is_of_disk(error: &io::Error) -> bool {
    use ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem
    )
}
