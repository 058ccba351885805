//! zune-jpeg.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::super::{DecodeError, Picture};

pub(super) fn decode(jpeg: &[u8]) -> Result<Picture, DecodeError> {
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
    let rgb = decoder.decode().map_err(corrupt)?;
    Ok(Picture {
        rgb,
        // Both sides are below 2^16, the format's limit.
        width: width as u32,
        height: height as u32,
    })
}
