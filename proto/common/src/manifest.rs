//! The manifest: the list of images, in the same order on every worker.
//!
//! It lists names and sizes only. Whether a file is an image is for the decoder to say, so that a
//! bad file is reported and counted instead of left out in silence.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use proto::v1;

/// The folder of classes in Caltech101's archive.
pub const CATEGORIES: &str = "101_ObjectCategories";

/// Why a folder has no manifest. Each message is one line that names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The data folder does not exist.
    #[error(
        "no data folder at `{}`: give --data a folder with one sub-folder per class, or `demo`; \
         in a container, is the volume mounted there?",
        .0.display()
    )]
    NotFound(PathBuf),

    /// The data folder is not a directory.
    #[error("`{}` is not a directory: give --data a folder with one sub-folder per class", .0.display())]
    NotADirectory(PathBuf),

    /// Fewer than two class folders.
    #[error(
        "`{}` has {found} class folder(s), at least 2 are required: put the images of each class into a sub-folder of its own",
        .folder.display()
    )]
    TooFewClasses {
        /// The folder of classes.
        folder: PathBuf,
        /// How many class folders it has.
        found: usize,
    },

    /// A class folder without files.
    #[error("the class folder `{}` has no images: add some or remove it", .0.display())]
    NoImages(PathBuf),

    /// A name that is not UTF-8 and cannot be sent to other workers.
    #[error("the name `{}` is not valid UTF-8: rename the file", .0.display())]
    NotUtf8(PathBuf),

    /// A path in the coordinator's list is not that of an image.
    #[error(
        "the coordinator's list of images contains `{0}`, which is not in one of its class folders"
    )]
    NotAnImage(String),

    /// Reading failed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_path_buf();
    move |source| ManifestError::Io {
        action,
        path,
        source,
    }
}

/// The sorted list of images. An image's index is its position in [`files`](Self::files).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The folder of classes.
    pub root: PathBuf,
    /// Class names in bytewise order; a label is a position in this list.
    pub classes: Vec<String>,
    /// Every image, class by class, in bytewise order of the name within a class.
    pub files: Vec<FileEntry>,
}

/// One image of the [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the folder of classes, with `/` between class and file.
    pub path: String,
    /// Position of the class in [`Manifest::classes`].
    pub label: u32,
    /// Size in bytes.
    pub size: u64,
}

impl Manifest {
    /// Lists `root/101_ObjectCategories/<class>/*`, or `root/<class>/*` where that folder
    /// does not exist. Hidden names and what is not a regular file are skipped.
    /// `limit_per_class` keeps only the first images of each class.
    ///
    /// # Errors
    /// When the folder is missing, unreadable or not a folder, when it has fewer than two
    /// classes, when a class has no files, and on a name that is not UTF-8.
    pub fn scan(root: &Path, limit_per_class: Option<usize>) -> Result<Self, ManifestError> {
        require_directory(root)?;
        let nested = root.join(CATEGORIES);
        let root = if nested.is_dir() {
            nested
        } else {
            root.to_path_buf()
        };

        let classes = sorted_entries(&root, fs::Metadata::is_dir)?;
        if classes.len() < 2 {
            return Err(ManifestError::TooFewClasses {
                folder: root,
                found: classes.len(),
            });
        }
        let mut files = Vec::new();
        for (label, (class, _)) in (0u32..).zip(&classes) {
            let folder = root.join(class);
            let entries = sorted_entries(&folder, fs::Metadata::is_file)?;
            if entries.is_empty() || limit_per_class == Some(0) {
                return Err(ManifestError::NoImages(folder));
            }
            let kept = entries
                .into_iter()
                .take(limit_per_class.unwrap_or(usize::MAX));
            files.extend(kept.map(|(name, size)| FileEntry {
                path: format!("{class}/{name}"),
                label,
                size,
            }));
        }
        let classes = classes.into_iter().map(|(name, _)| name).collect();
        Ok(Self {
            root,
            classes,
            files,
        })
    }

    /// The list that a coordinator sent; the images are, or will be, under `root(fingerprint)`.
    ///
    /// # Errors
    /// A path is not that of a file in a class folder.
    pub fn listed(
        dataset: v1::Dataset,
        root: impl FnOnce(&str) -> PathBuf,
    ) -> Result<Self, ManifestError> {
        let labels: HashMap<&str, u32> = (dataset.classes.iter().map(String::as_str))
            .zip(0..)
            .collect();
        let mut files = Vec::with_capacity(dataset.files.len());
        for file in dataset.files {
            let place = |(class, name): (&str, &str)| {
                let plain = |part: &str| !part.starts_with('.') && !part.contains(['/', '\0']);
                let label = *labels.get(class)?;
                (plain(class) && plain(name) && !name.is_empty()).then_some(label)
            };
            let label = file.path.split_once('/').and_then(place);
            let Some(label) = label else {
                return Err(ManifestError::NotAnImage(file.path));
            };
            files.push(FileEntry {
                path: file.path,
                label,
                size: file.size,
            });
        }
        let mut manifest = Self {
            root: PathBuf::new(),
            classes: dataset.classes,
            files,
        };
        manifest.root = root(&manifest.fingerprint());
        Ok(manifest)
    }

    /// The same list for the wire.
    #[must_use]
    pub fn entries(&self) -> Vec<v1::FileEntry> {
        let entry = |file: &FileEntry| v1::FileEntry {
            path: file.path.clone(),
            size: file.size,
        };
        self.files.iter().map(entry).collect()
    }

    /// SHA-256 in hex over every relative path and size: equal on two workers exactly when they
    /// have the same list of files.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            // A name has no NUL, so no two lists give the same bytes.
            hash.update(file.path.as_bytes());
            hash.update([0]);
            hash.update(file.size.to_le_bytes());
        }
        format!("{:x}", hash.finalize())
    }

    /// The path of the image with this index; `None` past the end.
    #[must_use]
    pub fn location(&self, index: u32) -> Option<PathBuf> {
        self.files
            .get(index as usize)
            .map(|file| self.root.join(&file.path))
    }
}

fn require_directory(path: &Path) -> Result<(), ManifestError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(ManifestError::NotADirectory(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ManifestError::NotFound(path.to_path_buf()))
        }
        Err(error) => Err(failed("read the data folder", path)(error)),
    }
}

/// Names and sizes of the visible entries that are `wanted`, in bytewise order of the name.
/// Symbolic links count as what they point at; a dangling one is an error, because
/// skipping it would change the data set in silence.
fn sorted_entries(
    folder: &Path,
    wanted: fn(&fs::Metadata) -> bool,
) -> Result<Vec<(String, u64)>, ManifestError> {
    let mut found = Vec::new();
    let read = || failed("read the folder", folder);
    for entry in fs::read_dir(folder).map_err(read())? {
        let entry = entry.map_err(read())?;
        let name: OsString = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let metadata = fs::metadata(&path).map_err(failed("read", &path))?;
        if wanted(&metadata) {
            let name = name
                .into_string()
                .map_err(|_| ManifestError::NotUtf8(path))?;
            found.push((name, metadata.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn tree(files: &[(&str, usize)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, size) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7u8; *size]).unwrap();
        }
        dir
    }

    #[test]
    fn a_received_list_is_the_same_list_and_no_path_leaves_its_folder() {
        let dir = tree(&[("a/1.jpg", 1), ("b/2.jpg", 2)]);
        let here = Manifest::scan(dir.path(), None).unwrap();
        let dataset = |path: &str| {
            let mut files = here.entries();
            path.clone_into(&mut files[1].path);
            let classes = here.classes.clone();
            v1::Dataset { classes, files }
        };
        let there = Manifest::listed(dataset("b/2.jpg"), |print| PathBuf::from(print)).unwrap();
        assert_eq!(there.root, PathBuf::from(here.fingerprint()));
        assert_eq!(listing(&there), listing(&here));
        for path in [
            "b/../../x",
            "../b/x",
            "b/",
            "b",
            "c/2.jpg",
            "/etc/passwd",
            "b/.x",
            "",
        ] {
            let refused = Manifest::listed(dataset(path), |_| PathBuf::new());
            assert!(refused.is_err(), "{path}");
        }
    }

    fn listing(manifest: &Manifest) -> Vec<(&str, u32, u64)> {
        manifest
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.label, f.size))
            .collect()
    }

    #[test]
    fn names_are_sorted_bytewise_and_hidden_ones_are_skipped() {
        let dir = tree(&[
            ("b/image_2.jpg", 1),
            ("b/image_10.jpg", 2),
            ("b/notes.txt", 3),
            ("b/.DS_Store", 9),
            ("b/nested/deep.jpg", 9),
            ("Z/x.JPG", 4),
            ("é/y.jpeg", 5),
            (".git/z.jpg", 9),
            ("README.md", 9),
        ]);
        let manifest = Manifest::scan(dir.path(), None).unwrap();
        assert_eq!(manifest.classes, ["Z", "b", "é"]);
        assert_eq!(
            listing(&manifest),
            [
                ("Z/x.JPG", 0, 4),
                ("b/image_10.jpg", 1, 2),
                ("b/image_2.jpg", 1, 1),
                ("b/notes.txt", 1, 3),
                ("é/y.jpeg", 2, 5),
            ]
        );
        let limited = Manifest::scan(dir.path(), Some(1)).unwrap();
        assert_eq!(
            listing(&limited),
            [
                ("Z/x.JPG", 0, 4),
                ("b/image_10.jpg", 1, 2),
                ("é/y.jpeg", 2, 5)
            ]
        );
    }

    #[test]
    fn both_layouts_give_one_fingerprint_and_any_change_another() {
        let nested = tree(&[
            ("101_ObjectCategories/a/1.jpg", 1),
            ("101_ObjectCategories/b/2.jpg", 2),
        ]);
        let flat = tree(&[("a/1.jpg", 1), ("b/2.jpg", 2)]);
        let nested = Manifest::scan(nested.path(), None).unwrap();
        let flat = Manifest::scan(flat.path(), None).unwrap();
        assert_eq!(nested.fingerprint(), flat.fingerprint());
        assert_eq!(nested.location(1), Some(nested.root.join("b/2.jpg")));

        for other in [
            [("a/1.jpg", 1), ("b/2.jpg", 3)],
            [("a/1.jpg", 1), ("b/3.jpg", 2)],
        ] {
            let other = tree(&other);
            let other = Manifest::scan(other.path(), None).unwrap();
            assert_ne!(other.fingerprint(), flat.fingerprint());
        }
    }

    #[test]
    fn each_unusable_folder_has_its_own_message() {
        let message = |path: &Path| Manifest::scan(path, None).unwrap_err().to_string();

        let one = tree(&[("only/1.jpg", 1)]);
        assert!(message(&one.path().join("absent")).starts_with("no data folder at"));
        assert!(message(&one.path().join("only/1.jpg")).contains("is not a directory"));
        assert!(message(one.path()).contains("has 1 class folder(s), at least 2"));

        let empty = tree(&[("a/1.jpg", 1), ("b/.hidden", 1)]);
        assert!(message(empty.path()).contains("b` has no images"));

        let odd = tree(&[("a/1.jpg", 1), ("b/2.jpg", 1)]);
        fs::write(
            odd.path().join("a").join(OsStr::from_bytes(b"\xff.jpg")),
            "x",
        )
        .unwrap();
        assert!(message(odd.path()).contains("is not valid UTF-8"));
    }
}
