//! Errors of a data set as a whole. A single bad image is not one of them: it is a
//! [`BadFile`](super::BadFile) with the message of a
//! [`DecodeError`](super::decode::DecodeError).

use std::io;
use std::path::PathBuf;

use common::manifest::ManifestError;

/// Why a data set, its cache or the demo set cannot be used. Each message is one line that
/// names the path and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder is not a data folder.
    #[error(transparent)]
    Manifest(#[from] ManifestError),

    /// A manifest index that no file has.
    #[error("image index {index} is out of range: there are {images} images")]
    IndexOutOfRange {
        /// The index asked for.
        index: u32,
        /// How many images there are.
        images: usize,
    },

    /// Reading or writing failed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// The failed action, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// The cache file does not fit.
    #[error(
        "no room for the image cache of {bytes} bytes at `{}`: {source}; choose a smaller --image-size or another disk",
        .path.display()
    )]
    NoRoom {
        /// The cache file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },

    /// Threads for decoding or loading could not be started.
    #[error("cannot start {threads} data thread(s): {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's error.
        reason: String,
    },

    /// libtorch refused an operation on the image tensor.
    #[error("libtorch on the image cache: {0}")]
    Tensor(#[from] tch::TchError),

    /// The folder for the demo set holds other files.
    #[error("`{}` is no demo set and is left as it is: name another folder or empty it", .0.display())]
    NotADemoSet(PathBuf),

    /// A demo image could not be encoded as JPEG.
    #[error("cannot encode the demo image `{}`: {reason}", .path.display())]
    Encode {
        /// The image.
        path: PathBuf,
        /// The encoder's error.
        reason: String,
    },
}

impl DataError {
    /// Names what was tried on which path; for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
