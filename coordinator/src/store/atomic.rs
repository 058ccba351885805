//! Replaces a file as one step: readers, and a crash at any moment, see the old content or the
//! new one. The order is that of POSIX durability: write, fsync the file, rename, fsync the
//! directory.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// How the names of things under way begin.
const PARTIAL: &str = ".partial-";

/// Writes through `fill` and puts the result at `path`.
///
/// # Errors
/// `fill` or the file system failed; `path` is as before and no temporary file is left.
pub(super) fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = temporary(path)?;
    fill(file.as_file_mut())?;
    replace(file, path)
}

/// A temporary file beside `path`, which removes itself unless [`replace`] takes it.
pub(super) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    Builder::new()
        .prefix(PARTIAL)
        // As for any new file, the umask decides who may read; tempfile alone would restrict it to
        // the owner.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory(path))
}

/// A temporary directory in `parent`, which removes itself unless it is renamed.
pub(super) fn temporary_directory(parent: &Path) -> io::Result<TempDir> {
    Builder::new()
        .prefix(PARTIAL)
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent)
}

/// Makes `file` durable and gives it the name `path`.
pub(super) fn replace(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(directory(path))
}

/// Makes the names in `directory` durable.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes the directory `path` so that no crash leaves a part of it under that name.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let grave = temporary_directory(directory(path))?;
    // A directory may take the place of an empty one.
    std::fs::rename(path, grave.path())?;
    grave.close()
}

/// Removes what a crash left half done in `directory`. Nothing may be under way there.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !is_partial(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a name is that of a thing under way.
pub(super) fn is_partial(name: &str) -> bool {
    name.starts_with(PARTIAL)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
