//! The manifest: the list of images, in the same order on every worker.
//!
//! It lists names and sizes only. A name tells what is meant as a picture; whether it is one is for
//! the decoder to say, so that a bad file is reported and counted instead of left out in silence.

mod error;
mod walk;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use proto::v1;

pub use error::ManifestError;
use walk::{Found, is_stray, require_directory, sub_folders};

/// The folder of classes in Caltech101's archive.
pub const CATEGORIES: &str = "101_ObjectCategories";

/// The sorted list of images. An image's index is its position in [`files`](Self::files).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The folder of classes.
    pub root: PathBuf,
    /// Class names in bytewise order; a label is a position in this list.
    pub classes: Vec<String>,
    /// Every image, class by class, in bytewise order of the path within a class.
    pub files: Vec<FileEntry>,
    /// What was passed over in the folder, a line for each kind.
    pub passed_over: Vec<String>,
}

/// One image of the [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Path relative to the folder of classes, with `/` between its parts.
    pub path: String,
    /// Position of the class in [`Manifest::classes`].
    pub label: u32,
    /// Size in bytes.
    pub size: u64,
}

impl Manifest {
    /// Lists the pictures at any depth below `root/101_ObjectCategories/<class>`, or below
    /// `root/<class>` where that folder does not exist: files with one of torchvision's
    /// `IMG_EXTENSIONS`, or `.gif`, in any case. Hidden names are skipped. `limit_per_class` keeps
    /// only the first pictures of each class.
    ///
    /// # Errors
    /// When the folder is missing, unreadable or not a folder, when it has fewer than two
    /// classes, or folders of classes in place of classes, when a class has no pictures, and on a
    /// name that is not UTF-8.
    pub fn scan(root: &Path, limit_per_class: Option<usize>) -> Result<Self, ManifestError> {
        require_directory(root)?;
        let nested = root.join(CATEGORIES);
        let root = if nested.is_dir() {
            nested
        } else {
            root.to_path_buf()
        };

        let folders = sub_folders(&root)?;
        let meant = folders.iter().filter(|folder| !is_stray(folder));
        refuse_other_layouts(&root, &meant.cloned().collect::<Vec<String>>())?;
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        let mut found = Found::default();
        for class in folders {
            let folder = root.join(&class);
            let mut pictures = found.walk(&folder)?;
            if pictures.is_empty() && found.pass_over(&class) {
                continue;
            }
            pictures.truncate(limit_per_class.unwrap_or(usize::MAX));
            if pictures.is_empty() {
                return Err(ManifestError::NoImages(folder));
            }
            // Fewer than 2^32 classes: each has a folder.
            let label = classes.len() as u32;
            files.extend(pictures.into_iter().map(|(path, size)| FileEntry {
                path: format!("{class}/{path}"),
                label,
                size,
            }));
            classes.push(class);
        }
        if classes.len() < 2 {
            return Err(ManifestError::TooFewClasses {
                folder: root,
                found: classes.len(),
            });
        }
        Ok(Self {
            root,
            classes,
            files,
            passed_over: found.lines(),
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
            let place = |(class, rest): (&str, &str)| {
                let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
                let label = *labels.get(class)?;
                let plain = plain(class) && rest.split('/').all(plain) && !file.path.contains('\0');
                plain.then_some(label)
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
            passed_over: Vec::new(),
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

/// # Errors
/// The folders in `root` hold folders of classes, by what people often have: a folder too high, or
/// one that is split already.
fn refuse_other_layouts(root: &Path, folders: &[String]) -> Result<(), ManifestError> {
    const PARTS: [&str; 5] = ["train", "val", "valid", "validation", "test"];
    let holds_classes = |name: &str| Ok(sub_folders(&root.join(name))?.len() >= 2);
    let is_part = |name: &String| PARTS.contains(&name.to_lowercase().as_str());
    match folders {
        [only] if holds_classes(only)? => Err(ManifestError::TooHigh {
            folder: root.to_owned(),
            below: root.join(only),
        }),
        [first, _, ..] if folders.iter().all(is_part) && holds_classes(first)? => {
            let train = folders
                .iter()
                .find(|name| name.eq_ignore_ascii_case("train"));
            Err(ManifestError::Split {
                folder: root.to_owned(),
                parts: folders.join(", "),
                part: root.join(train.unwrap_or(first)),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
