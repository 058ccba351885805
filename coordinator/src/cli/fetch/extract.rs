//! Unpacks the images of Caltech101, all or nothing.
//!
//! Owns the walk through zip, gzip and tar. Everything is written into a scratch folder that takes
//! its final name at the end; `tar` writes nothing outside of it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Error, anyhow};
use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use super::sources::CALTECH101_FOLDER;
use super::{is_of_disk, unwritable};

/// Where unpacking is under way, or was when it was killed.
const SCRATCH: &str = ".unpacking";
/// The archive inside CaltechDATA's zip that holds the images, in whichever folder.
const INNER_ARCHIVE: &str = "101_ObjectCategories.tar.gz";

/// Unpacks `archive` (CaltechDATA's zip, or the `.tar.gz` inside of it) so that
/// `place/101_ObjectCategories` appears. The caller's lock keeps others out of `place`.
pub(super) fn unpack(archive: &Path, place: &Path) -> Result<(), Error> {
    let scratch = place.join(SCRATCH);
    // What a killed process left behind; usually there is none.
    let _ = std::fs::remove_dir_all(&scratch);
    let result = (|| {
        std::fs::create_dir(&scratch)?;
        unpack_zip_or_gzip(archive, &scratch)?;
        let images = scratch.join(CALTECH101_FOLDER);
        if !images.is_dir() {
            return Err(other(format!("it holds no folder {CALTECH101_FOLDER}")));
        }
        // One flush of the file system in place of thousands of files.
        rustix::fs::syncfs(File::open(&images)?)?;
        std::fs::rename(images, place.join(CALTECH101_FOLDER))
    })();
    let _ = std::fs::remove_dir_all(&scratch);
    result.map_err(|error| match is_of_disk(&error) {
        true => unwritable(place)(error),
        false => anyhow!(
            "{} is not the expected archive: {error}; remove it and fetch again",
            archive.display()
        ),
    })
}

fn unpack_zip_or_gzip(archive: &Path, into: &Path) -> io::Result<()> {
    let file = BufReader::new(File::open(archive)?);
    let Ok(mut zip) = ZipArchive::new(file) else {
        return unpack_tar_gz(File::open(archive)?, into);
    };
    let name = zip
        .file_names()
        .find(|name| name.rsplit('/').next() == Some(INNER_ARCHIVE))
        .ok_or_else(|| other(format!("it holds no {INNER_ARCHIVE}")))?
        .to_owned();
    unpack_tar_gz(zip.by_name(&name)?, into)
}

fn unpack_tar_gz(bytes: impl Read, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let is_image = path
            .strip_prefix(".")
            .unwrap_or(&path)
            .starts_with(CALTECH101_FOLDER);
        if is_image && !is_finder_metadata(&path) {
            entry.unpack_in(into)?;
        }
    }
    // The checksum of gzip stands behind the last entry.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn other(reason: String) -> io::Error {
    io::Error::other(reason)
}

/// `._name` and `.DS_Store`, which macOS adds to archives and which are no images.
fn is_finder_metadata(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("._") || name == ".DS_Store"
}
