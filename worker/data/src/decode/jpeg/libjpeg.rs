//! libjpeg, as Pillow calls it.

use mozjpeg::{ColorSpace, Decompress};

use super::super::{DecodeError, Picture, check_size};

/// Of the crate around libjpeg, whose input is in memory: not an error of reading a file.
fn corrupt(error: std::io::Error) -> DecodeError {
    DecodeError::Corrupt(error.to_string())
}

/// `adobe` is whether the file has Adobe's marker: its CMYK is inverted then.
///
/// # Panics
/// On each error of libjpeg, with its text.
pub(super) fn decode(jpeg: &[u8], adobe: bool) -> Result<Picture, DecodeError> {
    let image = Decompress::new_mem(jpeg).map_err(corrupt)?;
    let (width, height) = image.size();
    check_size(width, height)?;
    let rgb = match image.color_space() {
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let mut image = image.to_colorspace(ColorSpace::JCS_CMYK).map_err(corrupt)?;
            let pixels: Vec<[u8; 4]> = image.read_scanlines().map_err(corrupt)?;
            let inverted = if adobe { 255 } else { 0 };
            let rgb = |pixel: [u8; 4]| cmyk_to_rgb(pixel.map(|value| value ^ inverted));
            pixels.into_iter().flat_map(rgb).collect()
        }
        _ => {
            let mut image = image.rgb().map_err(corrupt)?;
            let pixels: Vec<[u8; 3]> = image.read_scanlines().map_err(corrupt)?;
            pixels.into_flattened()
        }
    };
    Ok(Picture {
        rgb,
        // Both sides are below 2^16, the format's limit.
        width: width as u32,
        height: height as u32,
    })
}

/// Pillow's `convert("RGB")`: each ink takes its part of the light that black leaves, rounded.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * light + 128;
        // Product / 255, rounded; it is at most `light`.
        (light - ((product + (product >> 8)) >> 8)) as u8
    })
}
