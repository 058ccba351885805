//! Pillow's `Image.resize(…, BILINEAR)`, which torchvision's `Resize` calls.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::{DecodeError, Picture};

/// Triangle filter widened by the scale, in 8-bit fixed point, rows first. The type of pixel is
/// fixed here: to choose it at run time, this crate would compile the resizer for thirteen of them.
pub(super) fn resize(picture: &Picture, size: u32) -> Result<Vec<u8>, DecodeError> {
    let refused = |error: &dyn std::fmt::Display| DecodeError::Resize(error.to_string());
    let source = TypedImageRef::<U8x3>::from_buffer(picture.width, picture.height, &picture.rgb);
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
