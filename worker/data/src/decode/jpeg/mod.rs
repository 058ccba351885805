//! JPEG, by two decoders. zune-jpeg is the faster one where there is no assembler to build
//! libjpeg's SIMD code with; it gets the kinds of files on which it is proven to agree with Pillow,
//! nearly all there are. libjpeg, which Pillow uses too, gets the others, and those that zune-jpeg
//! refuses.

mod header;
mod libjpeg;
mod zune;

use super::{DecodeError, Picture, check_size, unless_it_panics};
use header::Header;

/// The marker that begins each file.
pub(super) const START_OF_IMAGE: [u8; 2] = [0xFF, 0xD8];

/// zune-jpeg takes up to 9 bytes a pixel at once; libjpeg reads row by row.
const MAX_PIXELS_AT_ONCE: usize = 50_000_000;

pub(super) fn decode(jpeg: &[u8]) -> Result<Picture, DecodeError> {
    if !has_end_marker(jpeg) {
        return Err(DecodeError::Truncated);
    }
    let header = Header::read(jpeg);
    if let Some(frame) = &header.frame {
        check_size(frame.width, frame.height)?;
        if header.is_plain() && frame.width * frame.height <= MAX_PIXELS_AT_ONCE {
            let picture = unless_it_panics(|| zune::decode(jpeg));
            if picture.is_ok() {
                return picture;
            }
        }
    }
    unless_it_panics(|| libjpeg::decode(jpeg, header.adobe))
}

/// Whether the marker segments lead to an end-of-image marker.
///
/// zune-jpeg, like libjpeg, fills what is missing with grey. Pillow refuses a file that ends
/// before the marker and accepts anything after it; so does this.
fn has_end_marker(jpeg: &[u8]) -> bool {
    header::Markers::of(jpeg).any(|(marker, _)| marker == header::END_OF_IMAGE)
}
