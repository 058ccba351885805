//! Unpacks the images of Caltech101, whole or not at all.
//!
//! Owns the walk through zip, gzip and tar, and every guard on it. Must not trust a single name,
//! type or size in the archive. All is written into a fresh sibling folder that takes its final
//! name at the end; links are never made, so a path of plain names cannot leave that folder.

use super::console::Console;
use super::error::FetchError;
use super::part::sync_folder_of;
use super::sources::{CALTECH101_FOLDER, CALTECH101_INNER_ARCHIVE};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Start of the name of a folder in which unpacking is under way, or was when it was killed.
const SCRATCH: &str = ".unpacking-";

/// What an archive may cost at most.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes after decompression, headers included.
    pub(super) bytes: u64,
    /// Files and folders.
    pub(super) entries: u64,
}

impl Default for Limits {
    /// Caltech101 has about 150 MB in 9,250 entries; this is ten times that.
    fn default() -> Self {
        Self {
            bytes: 1_500_000_000,
            entries: 100_000,
        }
    }
}

/// Unpacks `archive` (CaltechDATA's zip, or the `.tar.gz` inside it) so that
/// `place/101_ObjectCategories` appears.
pub(super) fn unpack(
    archive: &Path,
    place: &Path,
    limits: &Limits,
    console: &Console,
) -> Result<(), FetchError> {
    remove_leftovers(place);
    let scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempdir_in(place)
        .map_err(|error| FetchError::storage(place, error))?;
    let unpacking = Unpacking {
        archive,
        into: scratch.path(),
        limits,
        console,
    };
    unpacking.run()?;

    let (ready, folder) = (
        scratch.path().join(CALTECH101_FOLDER),
        place.join(CALTECH101_FOLDER),
    );
    if !ready.is_dir() {
        return Err(unpacking.bad(format!("it holds no folder {CALTECH101_FOLDER}")));
    }
    // One flush of the file system in place of one for each of thousands of files.
    File::open(&ready)
        .and_then(|handle| rustix::fs::syncfs(&handle).map_err(io::Error::from))
        .map_err(|error| FetchError::storage(&ready, error))?;
    std::fs::rename(&ready, &folder).map_err(|error| FetchError::storage(&folder, error))?;
    sync_folder_of(&folder)
}

/// Removes what a killed process left half unpacked; the caller's lock keeps live ones out.
fn remove_leftovers(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// One archive on its way into one scratch folder.
struct Unpacking<'a> {
    archive: &'a Path,
    into: &'a Path,
    limits: &'a Limits,
    console: &'a Console,
}

impl Unpacking<'_> {
    fn run(&self) -> Result<(), FetchError> {
        let open = || -> io::Result<(File, [u8; 2])> {
            let mut file = File::open(self.archive)?;
            let mut magic = [0; 2];
            file.read_exact(&mut magic)?;
            file.rewind()?;
            Ok((file, magic))
        };
        let (file, magic) = open().map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad("it is empty"),
            _ => FetchError::storage(self.archive, error),
        })?;
        match &magic {
            b"PK" => self.zip(file),
            [0x1f, 0x8b] => self.tar_gz(BufReader::new(file)),
            _ => Err(self.bad("it is neither a zip nor a gzip file")),
        }
    }

    /// Finds the inner archive in a zip. Nothing else of the zip is written anywhere, but a zip
    /// with one hostile name is not trusted for the rest.
    fn zip(&self, file: File) -> Result<(), FetchError> {
        let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| self.bad(e))?;
        let mut inner = None;
        for name in zip.file_names() {
            let path = self.safe(Path::new(name))?;
            if path
                .file_name()
                .is_some_and(|file| file == CALTECH101_INNER_ARCHIVE)
            {
                inner = Some(name.to_owned());
            }
        }
        let missing = || self.bad(format!("it holds no {CALTECH101_INNER_ARCHIVE}"));
        let inner = inner.ok_or_else(missing)?;
        let entry = zip.by_name(&inner).map_err(|error| self.bad(error))?;
        self.tar_gz(BufReader::new(entry))
    }

    fn tar_gz(&self, compressed: impl io::BufRead) -> Result<(), FetchError> {
        let bounded = MultiGzDecoder::new(compressed).take(self.limits.bytes + 1);
        let mut tar = tar::Archive::new(bounded);
        let outcome = self.entries(&mut tar);
        let mut rest = tar.into_inner();
        // Whoever hits the limit sees an end of file: name the cause, not the symptom.
        if rest.limit() == 0 {
            return Err(self.too_large());
        }
        outcome?;
        // To the end of the stream, where gzip and zip keep their checksums.
        io::copy(&mut rest, &mut io::sink()).map_err(|error| self.bad(error))?;
        if rest.limit() == 0 {
            Err(self.too_large())
        } else {
            Ok(())
        }
    }

    fn entries<R: Read>(&self, tar: &mut tar::Archive<R>) -> Result<(), FetchError> {
        let mut meter = self.console.files("unpacking");
        let mut buffer = vec![0; 1 << 16];
        let entries = tar.entries().map_err(|error| self.bad(error))?;
        for (count, entry) in entries.enumerate() {
            if count as u64 >= self.limits.entries {
                return Err(FetchError::ArchiveTooLarge {
                    archive: self.archive.to_owned(),
                    limit: format!("{} entries", self.limits.entries),
                });
            }
            let mut entry = entry.map_err(|error| self.bad(error))?;
            let name = entry.path().map_err(|error| self.bad(error))?.into_owned();
            let kind = entry.header().entry_type();
            if kind == EntryType::XGlobalHeader {
                continue;
            }
            if let Some(reason) = forbidden(kind) {
                return Err(self.hostile(&name, reason));
            }
            let path = self.safe(&name)?;
            if !path.starts_with(CALTECH101_FOLDER) || is_finder_metadata(&path) {
                continue;
            }
            let path = self.into.join(path);
            let folder = if kind == EntryType::Directory {
                Some(&*path)
            } else {
                path.parent()
            };
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder).map_err(|e| FetchError::storage(folder, e))?;
            }
            if kind != EntryType::Directory {
                self.file(&mut entry, &path, &mut buffer)?;
                meter.advance(1);
            }
        }
        Ok(())
    }

    /// Copies one file, telling a damaged archive from a full disk.
    fn file(
        &self,
        entry: &mut impl Read,
        path: &Path,
        buffer: &mut [u8],
    ) -> Result<(), FetchError> {
        let mut file = File::create(path).map_err(|error| FetchError::storage(path, error))?;
        loop {
            let n = entry.read(buffer).map_err(|error| self.bad(error))?;
            if n == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..n])
                .map_err(|error| FetchError::storage(path, error))?;
        }
    }

    /// `path` reduced to plain names, or an error if it has anything that leads elsewhere.
    fn safe(&self, path: &Path) -> Result<PathBuf, FetchError> {
        let mut plain = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => plain.push(name),
                Component::CurDir => {}
                Component::ParentDir => {
                    return Err(self.hostile(path, "which leads out of its folder by '..'"));
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(self.hostile(path, "which is an absolute path"));
                }
            }
        }
        Ok(plain)
    }

    fn hostile(&self, entry: &Path, reason: &'static str) -> FetchError {
        FetchError::UnsafeArchive {
            archive: self.archive.to_owned(),
            entry: entry.display().to_string(),
            reason,
        }
    }

    fn bad(&self, reason: impl ToString) -> FetchError {
        FetchError::BadArchive {
            archive: self.archive.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn too_large(&self) -> FetchError {
        FetchError::ArchiveTooLarge {
            archive: self.archive.to_owned(),
            limit: format!("{} bytes", self.limits.bytes),
        }
    }
}

/// Why an entry of this type is refused. The data set has files and folders and nothing else.
fn forbidden(kind: EntryType) -> Option<&'static str> {
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => None,
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a hard link"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Some("a device or pipe"),
        _ => Some("an entry of an unknown type"),
    }
}

/// `._name` and `.DS_Store`, which macOS adds to archives and which are no images.
fn is_finder_metadata(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    name.starts_with("._") || name == ".DS_Store"
}
