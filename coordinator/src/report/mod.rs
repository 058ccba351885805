//! The pictures of a run: values in, PNG bytes out. Reads and writes no file.

pub mod curves;
pub mod grid;

mod font;

/// A picture that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the {what}: {cause}")]
pub struct ReportError {
    what: &'static str,
    cause: String,
}

impl ReportError {
    fn new(what: &'static str, cause: impl std::fmt::Display) -> Self {
        Self {
            what,
            cause: cause.to_string(),
        }
    }
}

/// Encodes RGB bytes, row by row.
fn encode(what: &'static str, rgb: &[u8], size: (u32, u32)) -> Result<Vec<u8>, ReportError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder
        .write_header()
        .map_err(|error| ReportError::new(what, error))?;
    writer
        .write_image_data(rgb)
        .map_err(|error| ReportError::new(what, error))?;
    writer
        .finish()
        .map_err(|error| ReportError::new(what, error))?;
    Ok(bytes)
}
