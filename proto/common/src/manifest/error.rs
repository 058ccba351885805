//! Why a folder has no manifest.

use std::io;
use std::path::{Path, PathBuf};

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

    /// Its only folder holds the classes.
    #[error(
        "`{}` holds one folder, which holds the class folders: did you mean --data `{}`?",
        .folder.display(), .below.display()
    )]
    TooHigh {
        /// The data folder.
        folder: PathBuf,
        /// The folder in it.
        below: PathBuf,
    },

    /// Its folders are the parts of a split, each with folders of classes.
    #[error(
        "`{}` holds {parts}, each with class folders: give --data one of them, such as `{}`, which \
         --validation-fraction divides",
        .folder.display(), .part.display()
    )]
    Split {
        /// The data folder.
        folder: PathBuf,
        /// The names of its folders.
        parts: String,
        /// One of them.
        part: PathBuf,
    },

    /// A class folder without pictures.
    #[error(
        "the class folder `{}` has no pictures (.jpg, .png, .webp, .tif, .bmp, .gif, .ppm): add \
         some or remove it",
        .0.display()
    )]
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

/// Names what was tried on which path; for `map_err`.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    let path = path.to_path_buf();
    move |source| ManifestError::Io {
        action,
        path,
        source,
    }
}
