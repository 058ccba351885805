//! One picture file to S×S RGB bytes, as the notebook's transform makes them: Pillow's
//! `convert("RGB")`, then torchvision's `Resize((S, S))`.
//!
//! It knows no manifest, no tensor and no thread. The same bytes give the same pixels on every
//! worker, and a file that cannot be decoded is an error, never a panic. The content of a file
//! tells its format; its name does not.

mod formats;
mod jpeg;
mod resize;

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Larger images are refused: the header alone may claim any size. It is Pillow's limit, above
/// which it raises `DecompressionBombError`: twice `Image.MAX_IMAGE_PIXELS`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 256 << 20;

/// Why a file cannot be decoded. The messages do not contain the file's name; the caller puts it in
/// front.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file has no bytes.
    #[error("is empty")]
    Empty,
    /// The first bytes are those of no format that is read.
    #[error("is no picture: it is neither JPEG, PNG, WebP, TIFF, BMP, GIF nor PPM")]
    UnknownFormat,
    /// The JPEG stops before its end-of-image marker.
    #[error("is truncated: no end-of-image marker")]
    Truncated,
    /// The file is larger than [`MAX_BYTES`].
    #[error("has {0} bytes, more than the limit of {MAX_BYTES}")]
    TooManyBytes(u64),
    /// The image is larger than [`MAX_PIXELS`].
    #[error("is {width}x{height} pixels, more than the limit of {MAX_PIXELS} in all")]
    TooManyPixels {
        /// Pixels in a row, as the header says.
        width: usize,
        /// Rows, as the header says.
        height: usize,
    },
    /// The contents break the format, or use a part of it that is not supported
    /// (a JPEG that is lossless or has 12 bits, a TIFF with a palette or with floating-point samples).
    #[error("is corrupt or unsupported: {0}")]
    Corrupt(String),
    /// The image could not be resized.
    #[error("cannot be resized: {0}")]
    Resize(String),
}

/// An image in its original size.
struct Picture {
    /// Row by row, R G B in turn.
    rgb: Vec<u8>,
    width: u32,
    height: u32,
}

/// Decodes the file to `size * size * 3` bytes: row by row, R G B in turn, 0–255.
///
/// # Errors
/// When the file cannot be read, is empty, no picture, truncated, corrupt, or too large.
pub fn decode(path: &Path, size: u32) -> Result<Vec<u8>, DecodeError> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(DecodeError::TooManyBytes(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The limit holds also for a file that grows meanwhile.
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    decode_bytes(&bytes, size)
}

/// [`decode`] for a file in memory.
///
/// # Errors
/// As [`decode`], except for reading.
pub fn decode_bytes(bytes: &[u8], size: u32) -> Result<Vec<u8>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let picture = match bytes.starts_with(&jpeg::START_OF_IMAGE) {
        true => jpeg::decode(bytes)?,
        false => unless_it_panics(|| formats::decode(bytes))?,
    };
    resize::resize(&picture, size)
}

/// Runs a decoder. They have asserts and unwraps on their way, and one bad file must not end a run:
/// a panic is an error of that file. The decoder is dropped with it, and no state survives.
fn unless_it_panics<T>(decoder: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|panic| {
        // libjpeg's errors arrive as one, with their text.
        let said = panic.downcast_ref::<String>();
        let said = said.map_or("the decoder panicked", String::as_str);
        Err(DecodeError::Corrupt(said.to_owned()))
    })
}

/// # Errors
/// More than [`MAX_PIXELS`].
fn check_size(width: usize, height: usize) -> Result<(), DecodeError> {
    match (width as u64).saturating_mul(height as u64) > MAX_PIXELS {
        true => Err(DecodeError::TooManyPixels { width, height }),
        false => Ok(()),
    }
}
