//! One JPEG file to S×S RGB bytes, as the notebook's transform makes them: Pillow's
//! `convert("RGB")`, then torchvision's `Resize((S, S))`.
//!
//! It knows no manifest, no tensor and no thread. The same bytes give the same pixels on every
//! worker, and a file that cannot be decoded is an error, never a panic.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Larger images are refused: decoding needs up to 9 bytes a pixel, and the header alone
/// may claim any size.
pub const MAX_PIXELS: u64 = 100_000_000;

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
    /// The first bytes are not a JPEG's.
    #[error("is not a JPEG")]
    NotJpeg,
    /// The file stops before its end-of-image marker.
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
    /// (arithmetic coding, 12 bits, lossless).
    #[error("is corrupt or unsupported: {0}")]
    Corrupt(String),
    /// The image could not be resized.
    #[error("cannot be resized: {0}")]
    Resize(String),
}

/// Decodes the file to `size * size * 3` bytes: row by row, R G B in turn, 0–255.
///
/// # Errors
/// When the file cannot be read, is empty, not a JPEG, truncated, corrupt, or too large.
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

/// [`decode`] for a JPEG in memory.
///
/// # Errors
/// As [`decode`], except for reading.
pub fn decode_bytes(jpeg: &[u8], size: u32) -> Result<Vec<u8>, DecodeError> {
    if jpeg.is_empty() {
        return Err(DecodeError::Empty);
    }
    if !jpeg.starts_with(&[0xFF, 0xD8]) {
        return Err(DecodeError::NotJpeg);
    }
    if !has_end_marker(jpeg) {
        return Err(DecodeError::Truncated);
    }
    // zune-jpeg has asserts and unwraps on its way, and its README calls a panic an acceptable
    // answer to a malformed stream. One bad file must not end a run, so a panic is an error
    // of that file here; the decoder is dropped with it, no state survives.
    let (rgb, width, height) = catch_unwind(AssertUnwindSafe(|| to_rgb(jpeg)))
        .unwrap_or_else(|_| Err(DecodeError::Corrupt("the decoder panicked".into())))?;
    resize(&rgb, width, height, size)
}

/// Whether the marker segments lead to an end-of-image marker.
///
/// zune-jpeg, like libjpeg, fills what is missing with grey. Pillow refuses a file that ends
/// before the marker and accepts anything after it; so does this. ITU-T T.81, B.1.1: a marker
/// is 0xFF and a code that is neither 0 (a stuffed byte of coded data) nor 0xFF (fill); all
/// but the restart markers, TEM and SOI/EOI are followed by a length that counts itself.
fn has_end_marker(jpeg: &[u8]) -> bool {
    let mut rest = &jpeg[2..];
    loop {
        let Some(start) = rest.iter().position(|&byte| byte == 0xFF) else {
            return false;
        };
        rest = &rest[start..];
        let Some(code) = rest.iter().position(|&byte| byte != 0xFF) else {
            return false;
        };
        let marker = rest[code];
        rest = &rest[code + 1..];
        match marker {
            0xD9 => return true,
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some((&length, _)) = rest.split_first_chunk::<2>() else {
                    return false;
                };
                let Some(after) = rest.get(usize::from(u16::from_be_bytes(length))..) else {
                    return false;
                };
                rest = after;
            }
        }
    }
}

/// RGB bytes, width and height of the image in its original size.
fn to_rgb(jpeg: &[u8]) -> Result<(Vec<u8>, u32, u32), DecodeError> {
    let corrupt = |error: zune_jpeg::errors::DecodeErrors| {
        DecodeError::Corrupt(error.to_string().trim_matches('"').to_lowercase())
    };
    let side = usize::from(u16::MAX);
    let options = DecoderOptions::new_fast()
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_headers().map_err(corrupt)?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| DecodeError::Corrupt("no frame header before the first scan".into()))?;
    if (width * height) as u64 > MAX_PIXELS {
        return Err(DecodeError::TooManyPixels { width, height });
    }
    let rgb = decoder.decode().map_err(corrupt)?;
    // Both sides are below 2^16, the format's limit.
    Ok((rgb, width as u32, height as u32))
}

/// Triangle filter widened by the scale, in 8-bit fixed point, rows first: the algorithm of
/// Pillow's `Image.resize(…, BILINEAR)`, which torchvision's `Resize` calls. The type of pixel is
/// fixed here: to choose it at run time, this crate would compile the resizer for thirteen of them.
fn resize(rgb: &[u8], width: u32, height: u32, size: u32) -> Result<Vec<u8>, DecodeError> {
    let refused = |error: &dyn std::fmt::Display| DecodeError::Resize(error.to_string());
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, rgb);
    let source = source.map_err(|error| refused(&error))?;
    let mut resized = vec![0; 3 * size as usize * size as usize];
    let target = TypedImage::<U8x3>::from_buffer(size, size, &mut resized);
    let mut target = target.map_err(|error| refused(&error))?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| refused(&error))?;
    Ok(resized)
}
