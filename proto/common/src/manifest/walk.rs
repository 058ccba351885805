//! Walks the folders of a data set.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{ManifestError, failed};
use crate::text::printable;

/// torchvision's `IMG_EXTENSIONS`, and GIF.
const PICTURES: [&str; 10] = [
    "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "gif",
];

/// Folders that systems and programs create beside the classes.
const STRAY: [&str; 6] = [
    "lost+found",
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__pycache__",
];

/// Deeper folders are refused: a link may lead back.
const DEPTH: usize = 32;

pub(super) fn is_stray(folder: &str) -> bool {
    STRAY.contains(&folder)
}

pub(super) fn require_directory(path: &Path) -> Result<(), ManifestError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(ManifestError::NotADirectory(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ManifestError::NotFound(path.to_path_buf()))
        }
        Err(error) => Err(failed("read the data folder", path)(error)),
    }
}

/// The names of the visible folders in a folder, in bytewise order.
pub(super) fn sub_folders(folder: &Path) -> Result<Vec<String>, ManifestError> {
    let entries = entries(folder)?.into_iter();
    let folders = entries.filter(|(_, metadata)| metadata.is_dir());
    Ok(folders.map(|(name, _)| name).collect())
}

/// What a walk has found beside pictures.
#[derive(Default)]
pub(super) struct Found {
    /// Files by their extension.
    files: BTreeMap<String, usize>,
    folders: Vec<String>,
}

impl Found {
    /// Path below the folder, and size, of all pictures, in bytewise order of the path.
    pub(super) fn walk(&mut self, folder: &Path) -> Result<Vec<(String, u64)>, ManifestError> {
        let mut pictures = Vec::new();
        self.collect(folder, "", DEPTH, &mut pictures)?;
        pictures.sort_unstable();
        Ok(pictures)
    }

    fn collect(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        pictures: &mut Vec<(String, u64)>,
    ) -> Result<(), ManifestError> {
        let Some(depth) = depth.checked_sub(1) else {
            let deep =
                io::Error::other("it is more than 32 folders deep: is it a link to a parent?");
            return Err(failed("read the folder", folder)(deep));
        };
        for (name, metadata) in entries(folder)? {
            let path = format!("{prefix}{name}");
            if metadata.is_dir() {
                self.collect(&folder.join(&name), &format!("{path}/"), depth, pictures)?;
            } else if metadata.is_file() {
                let extension = Path::new(&name).extension().unwrap_or_default();
                let extension = extension.to_string_lossy().to_lowercase();
                match PICTURES.contains(&extension.as_str()) {
                    true => pictures.push((path, metadata.len())),
                    false => *self.files.entry(extension).or_default() += 1,
                }
            }
        }
        Ok(())
    }

    /// Notes that a class folder without pictures is none; whether it is known as such.
    pub(super) fn pass_over(&mut self, folder: &str) -> bool {
        if is_stray(folder) {
            self.folders.push(folder.to_owned());
        }
        is_stray(folder)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.folders.is_empty() {
            lines.push(format!(
                "passed over folders without pictures: {}",
                self.folders.join(", ")
            ));
        }
        if !self.files.is_empty() {
            let kind = |(extension, files): (&String, &usize)| match extension.as_str() {
                "" => format!("{files} without an extension"),
                extension => format!("{files} .{}", printable(extension)),
            };
            let kinds: Vec<String> = self.files.iter().map(kind).collect();
            lines.push(format!(
                "passed over files that are no pictures by their names: {}",
                kinds.join(", ")
            ));
        }
        lines
    }
}

/// The visible entries of a folder, in bytewise order of the name. Symbolic links count as what they
/// point at; a dangling one is an error, because skipping it would change the data set in silence.
fn entries(folder: &Path) -> Result<Vec<(String, fs::Metadata)>, ManifestError> {
    let mut found = Vec::new();
    let read = || failed("read the folder", folder);
    for entry in fs::read_dir(folder).map_err(read())? {
        let entry = entry.map_err(read())?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path: PathBuf = entry.path();
        let metadata = fs::metadata(&path).map_err(failed("read", &path))?;
        let name = name
            .into_string()
            .map_err(|_| ManifestError::NotUtf8(path))?;
        found.push((name, metadata));
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}
