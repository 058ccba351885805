//! What both images share: the sheet that they are drawn on, its typeface and palette, and the PNG.
//!
//! plotters draws to a bitmap without smoothing thick lines and circles, so a sheet has [`SCALE`]
//! times as many pixels each way as its PNG. All coordinates on it are in its own pixels.

use std::sync::OnceLock;

use anyhow::{anyhow, ensure};
use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, RGBColor, TextStyle, register_font};

/// How many pixels of a sheet make one of the PNG, each way.
pub(super) const SCALE: u32 = 2;

/// Text and symbols.
pub(super) const INK: RGBColor = RGBColor(0x1b, 0x24, 0x30);
/// Secondary text, axes.
pub(super) const GREY: RGBColor = RGBColor(0x55, 0x60, 0x6e);
/// Grid lines.
pub(super) const FAINT: RGBColor = RGBColor(0xe4, 0xe8, 0xed);
/// The background.
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
// Colours that colour-blind readers can tell apart: Okabe and Ito, "Color Universal Design" (2008).
/// Training.
pub(super) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
/// Validation, and wrong predictions.
pub(super) const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// Accuracy, and right predictions.
pub(super) const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);

/// The typeface, which is built in: images look the same on a machine without any font.
const FONT: &str = "report";

/// A part of a sheet.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// `pixels` of the PNG in pixels of the sheet.
pub(super) const fn px(pixels: u32) -> i32 {
    (pixels * SCALE) as i32
}

/// Text of `size` pixels of the PNG.
pub(super) fn font(size: u32, colour: RGBColor) -> anyhow::Result<TextStyle<'static>> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let register = || register_font(FONT, FontStyle::Normal, UBUNTU_LIGHT).is_ok();
    ensure!(
        *REGISTERED.get_or_init(register),
        "the built-in font is unreadable"
    );
    let family = FontFamily::Name(FONT);
    let font = FontDesc::new(family, f64::from(size * SCALE), FontStyle::Normal);
    let mut style = TextStyle::from(font);
    style.color = colour.to_backend_color();
    Ok(style.pos(Pos::new(HPos::Left, VPos::Center)))
}

/// A line of text that starts at `x` and whose middle is at `y`.
pub(super) fn text(
    area: &Area,
    text: &str,
    style: &TextStyle,
    (x, y): (i32, i32),
) -> anyhow::Result<()> {
    // plotters overestimates the height of a line.
    let lower = (style.font.get_size() / 4.0) as i32;
    Ok(area.draw_text(text, style, (x, y + lower))?)
}

/// How wide `text` is, in pixels of the sheet.
pub(super) fn width(text: &str, style: &TextStyle) -> anyhow::Result<i32> {
    let size = style.font.box_size(text);
    let (width, _) = size.map_err(|error| anyhow!("cannot measure `{text}`: {error}"))?;
    Ok(width as i32)
}

/// `text`, or as much of its start as fits into `room` with an ellipsis behind it.
pub(super) fn fit(text: &str, style: &TextStyle, room: i32) -> anyhow::Result<String> {
    let mut shown = text.to_owned();
    let mut short: Vec<char> = text.chars().collect();
    while width(&shown, style)? > room && short.pop().is_some() {
        shown = short.iter().collect::<String>().trim_end().to_owned() + "…";
    }
    Ok(shown)
}

/// The PNG of `width` × `height` pixels that `draw` fills.
pub(super) fn png(
    (width, height): (u32, u32),
    draw: impl FnOnce(&Area) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<u8>> {
    let size = (width * SCALE, height * SCALE);
    let mut pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
    let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
    area.fill(&PAPER)?;
    draw(&area)?;
    area.present()?;
    drop(area);

    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&averaged(&pixels, width as usize))?;
    writer.finish()?;
    Ok(bytes)
}

/// Means over squares of [`SCALE`]² pixels.
fn averaged(pixels: &[u8], width: usize) -> Vec<u8> {
    let scale = SCALE as usize;
    let mut means = Vec::with_capacity(pixels.len() / (scale * scale));
    for rows in pixels.chunks_exact(3 * width * scale * scale) {
        let mut sums = vec![0; 3 * width];
        for row in rows.chunks_exact(3 * width * scale) {
            for (sum, square) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * scale)) {
                for (at, value) in square.iter().enumerate() {
                    sum[at % 3] += u32::from(*value);
                }
            }
        }
        means.extend(sums.iter().map(|sum| (sum / (SCALE * SCALE)) as u8));
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_to_the_room_it_has() {
        let style = font(16, INK).unwrap();
        assert_eq!(fit("crab", &style, px(100)).unwrap(), "crab");
        let name = "a_class_with_an_uncommonly_long_name";
        let short = fit(name, &style, px(100)).unwrap();
        assert!(short.ends_with('…') && name.starts_with(short.trim_end_matches('…')));
        let used = width(&short, &style).unwrap();
        assert!((px(75)..=px(100)).contains(&used), "{short} takes {used}");
    }
}
