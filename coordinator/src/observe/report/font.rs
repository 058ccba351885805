//! The one typeface of the pictures: registered once, measured, shortened to fit.
//!
//! Owns the font's name and metrics. Must not draw. The font is built in, so that a picture looks
//! the same on a machine without any font installed.

use super::error::ReportError;
use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::style::{FontFamily, FontStyle, IntoFont, register_font};
use std::sync::OnceLock;

const NAME: &str = "report";

/// The typeface, ready for use by plotters.
pub(super) fn family() -> Result<FontFamily<'static>, ReportError> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let register = || register_font(NAME, FontStyle::Normal, UBUNTU_LIGHT).is_ok();
    if *REGISTERED.get_or_init(register) {
        Ok(FontFamily::Name(NAME))
    } else {
        Err(ReportError::Font)
    }
}

/// How wide `text` is, in the unit of `size`.
pub(super) fn width(text: &str, size: f64) -> Result<f64, ReportError> {
    // Measured large and scaled down: plotters reports whole pixels.
    const MEASURE: f64 = 256.0;
    let font = (family()?, MEASURE).into_font();
    let (width, _) = font.box_size(text).map_err(|_| ReportError::Font)?;
    Ok(f64::from(width) * size / MEASURE)
}

/// `text`, or as much of its start as fits into `room` with an ellipsis behind it.
pub(super) fn fit(text: &str, size: f64, room: f64) -> Result<String, ReportError> {
    if width(text, size)? <= room {
        return Ok(text.to_owned());
    }
    let mut short: Vec<char> = text.chars().collect();
    while short.pop().is_some() {
        let candidate = short.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&candidate, size)? <= room {
            return Ok(candidate);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_to_the_room_it_has() {
        let whole = fit("crab", 16.0, 100.0).unwrap();
        assert_eq!(whole, "crab");
        let name = "a_class_with_an_uncommonly_long_name";
        let short = fit(name, 16.0, 100.0).unwrap();
        assert!(short.ends_with('…') && name.starts_with(short.trim_end_matches('…')));
        let used = width(&short, 16.0).unwrap();
        assert!((75.0..=100.0).contains(&used), "{short} takes {used}");
        assert_eq!(fit(name, 16.0, 2.0).unwrap(), "");
    }
}
