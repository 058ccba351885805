//! What is no JPEG, by the `image` crate, with the pixels of Pillow's `convert("RGB")`.

use std::io::Cursor;

use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageReader, Limits, Luma,
};

use super::{DecodeError, MAX_PIXELS, Picture, check_size};

/// Memory of one decoder: 16 bits of four channels for each pixel, and as much again.
const MAX_MEMORY: u64 = 16 * MAX_PIXELS;

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let format = image::guess_format(bytes).map_err(|_| DecodeError::UnknownFormat)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    let stored = decoder.original_color_type();
    let image = DynamicImage::from_decoder(decoder).map_err(|error| refused(&error))?;
    Ok(Picture {
        rgb: to_rgb(image, stored == ExtendedColorType::L16),
        width,
        height,
    })
}

fn refused(error: &ImageError) -> DecodeError {
    match error {
        // Without its length, the error of a file in memory says nothing else.
        ImageError::IoError(error) => DecodeError::Corrupt(format!("it ends early: {error}")),
        error => DecodeError::Corrupt(error.to_string()),
    }
}

/// Alpha is dropped, wherever it comes from. Of 16 bits the upper 8 are taken, but where the file
/// stores one 16-bit sample a pixel, its values are clipped to 255: so Pillow converts its modes
/// `I;16` and `I`.
fn to_rgb(image: DynamicImage, clipped: bool) -> Vec<u8> {
    if clipped {
        let image = image.into_luma16();
        let level = |pixel: &Luma<u16>| [pixel[0].min(255) as u8; 3];
        return image.pixels().flat_map(level).collect();
    }
    match image.color() {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => {
            image.into_rgb8().into_raw()
        }
        _ => {
            let values = image.into_rgb16().into_raw().into_iter();
            values.map(|value| (value >> 8) as u8).collect()
        }
    }
}
