//! A picture in the making: shapes and text by plotters, smooth edges, PNG at the end.
//!
//! Owns the pixel buffer, the palette and the encoding. Must not know what is drawn. plotters'
//! bitmap backend draws thick lines and circles without smoothing, so everything is drawn
//! [`SCALE`] times as large and averaged down at the end. All coordinates are in pixels of the
//! finished picture, with (0, 0) at the top left.

use super::error::ReportError;
use super::font;
use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

/// How much larger than the finished picture everything is drawn.
const SCALE: u32 = 3;

/// Text and symbols.
pub(super) const INK: RGBColor = RGBColor(0x1b, 0x24, 0x30);
/// Text of second rank, axes.
pub(super) const GREY: RGBColor = RGBColor(0x55, 0x60, 0x6e);
/// Grid lines.
pub(super) const FAINT: RGBColor = RGBColor(0xe4, 0xe8, 0xed);
/// The background.
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
// Colours that stay apart for colour-blind eyes: Okabe and Ito, "Color Universal Design" (2008).
/// Training.
pub(super) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
/// Validation, and what is wrong.
pub(super) const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// Accuracy, and what is right.
pub(super) const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);

/// A point of the picture.
pub(super) type Point = (f64, f64);

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// A point's mark: its shape differs by series, not its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Disc,
    Square,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    /// Line height in pixels.
    pub(super) size: f64,
    pub(super) colour: RGBColor,
    /// Bold; regular otherwise.
    pub(super) strong: bool,
}

/// A picture of fixed size that is being drawn.
pub(super) struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    /// An empty sheet of paper of `width` × `height` pixels.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let bytes = 3 * (width * SCALE) as usize * (height * SCALE) as usize;
        let RGBColor(paper, ..) = PAPER;
        Self {
            width,
            height,
            pixels: vec![paper; bytes],
        }
    }

    fn backend(&mut self) -> BitMapBackend<'_> {
        let size = (self.width * SCALE, self.height * SCALE);
        BitMapBackend::with_buffer(&mut self.pixels, size)
    }

    /// A straight line with round ends, `thickness` pixels wide.
    pub(super) fn line(
        &mut self,
        from: Point,
        to: Point,
        thickness: f64,
        colour: RGBColor,
    ) -> Result<(), ReportError> {
        let stroke = (thickness * f64::from(SCALE)).round().max(1.0) as u32;
        let style = ShapeStyle {
            color: colour.to_rgba(),
            filled: true,
            stroke_width: stroke,
        };
        self.backend()
            .draw_line(enlarge(from), enlarge(to), &style)
            .map_err(drawing)?;
        for end in [from, to].into_iter().filter(|_| stroke > 3) {
            self.disc(end, thickness / 2.0, colour)?;
        }
        Ok(())
    }

    /// A line of dashes.
    pub(super) fn dashes(
        &mut self,
        from: Point,
        to: Point,
        thickness: f64,
        colour: RGBColor,
    ) -> Result<(), ReportError> {
        const PERIOD: f64 = 8.0;
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy).max(1.0);
        let at = |s: f64| (from.0 + dx * s / length, from.1 + dy * s / length);
        for dash in 0..(length / PERIOD).ceil() as u32 {
            let start = f64::from(dash) * PERIOD;
            self.line(
                at(start),
                at((start + PERIOD * 0.55).min(length)),
                thickness,
                colour,
            )?;
        }
        Ok(())
    }

    /// A filled circle.
    pub(super) fn disc(
        &mut self,
        centre: Point,
        radius: f64,
        colour: RGBColor,
    ) -> Result<(), ReportError> {
        let radius = (radius * f64::from(SCALE)).round() as u32;
        self.backend()
            .draw_circle(enlarge(centre), radius, &colour, true)
            .map_err(drawing)
    }

    /// A filled rectangle.
    pub(super) fn block(
        &mut self,
        top_left: Point,
        bottom_right: Point,
        colour: RGBColor,
    ) -> Result<(), ReportError> {
        let (a, b) = (enlarge(top_left), enlarge(bottom_right));
        self.backend()
            .draw_rect(a, (b.0 - 1, b.1 - 1), &colour, true)
            .map_err(drawing)
    }

    /// A series' mark.
    pub(super) fn marker(
        &mut self,
        marker: Marker,
        at: Point,
        radius: f64,
        colour: RGBColor,
    ) -> Result<(), ReportError> {
        match marker {
            Marker::Disc => self.disc(at, radius, colour),
            Marker::Square => {
                // As large to the eye as the disc.
                let half = radius * 0.9;
                self.block(
                    (at.0 - half, at.1 - half),
                    (at.0 + half, at.1 + half),
                    colour,
                )
            }
        }
    }

    /// A line of text whose baseline is at `at`.
    pub(super) fn text(
        &mut self,
        text: &str,
        at: Point,
        align: Align,
        look: Type,
    ) -> Result<(), ReportError> {
        let size = look.size * f64::from(SCALE);
        let h = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = TextStyle::from((font::family()?, size).into_font())
            .color(&look.colour)
            .pos(Pos::new(h, VPos::Top));
        // plotters puts the baseline half a line below the top.
        let (x, y) = enlarge(at);
        let y = y - (size as f32 / 2.0) as i32;
        // The face is a light one: one more stroke makes it a regular one, two a bold one.
        for shift in 0..=1 + i32::from(look.strong) {
            self.backend()
                .draw_text(text, &style, (x + shift, y))
                .map_err(drawing)?;
        }
        Ok(())
    }

    /// A square RGB image of `size` pixels, stretched to `edge` pixels (bilinear). `pixels` holds
    /// 3·size² bytes.
    pub(super) fn image(&mut self, top_left: Point, edge: u32, pixels: &[u8], size: u32) {
        let (left, top) = enlarge(top_left);
        let (edge, size) = (edge * SCALE, size as usize);
        let row_bytes = 3 * (self.width * SCALE) as usize;
        let taps: Vec<_> = (0..edge).map(|i| tap(i, edge, size)).collect();
        for (dy, &(y0, y1, fy)) in taps.iter().enumerate() {
            let start = (top as usize + dy) * row_bytes + 3 * left as usize;
            let row = &mut self.pixels[start..start + 3 * edge as usize];
            for (target, &(x0, x1, fx)) in row.chunks_exact_mut(3).zip(&taps) {
                for (channel, value) in target.iter_mut().enumerate() {
                    let at = |x, y| f32::from(pixels[3 * (y * size + x) + channel]);
                    let above = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * fx;
                    let below = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * fx;
                    *value = (above + (below - above) * fy).round() as u8;
                }
            }
        }
    }

    /// The finished picture as an RGB PNG.
    pub(super) fn png(self) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.averaged())?;
        writer.finish()?;
        Ok(bytes)
    }

    /// The pixels at the finished size: means over squares of [`SCALE`]² drawn ones.
    fn averaged(&self) -> Vec<u8> {
        let (scale, width) = (SCALE as usize, self.width as usize);
        let mut sums = vec![0u16; 3 * width];
        let mut finished = Vec::with_capacity(3 * width * self.height as usize);
        for rows in self.pixels.chunks_exact(3 * width * scale * scale) {
            sums.fill(0);
            for row in rows.chunks_exact(3 * width * scale) {
                for (sum, square) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * scale)) {
                    for pixel in square.chunks_exact(3) {
                        for (sum, &value) in sum.iter_mut().zip(pixel) {
                            *sum += u16::from(value);
                        }
                    }
                }
            }
            let area = (scale * scale) as u16;
            finished.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
        }
        finished
    }
}

/// From pixels of the finished picture to drawn pixels.
fn enlarge((x, y): Point) -> (i32, i32) {
    let scale = f64::from(SCALE);
    ((x * scale).round() as i32, (y * scale).round() as i32)
}

/// The two source pixels, and the weight of the second, for target pixel `i` of `edge`.
fn tap(i: u32, edge: u32, size: usize) -> (usize, usize, f32) {
    let at = (i as f32 + 0.5) * size as f32 / edge as f32 - 0.5;
    let at = at.clamp(0.0, (size - 1) as f32);
    let low = at as usize;
    (low, (low + 1).min(size - 1), at - low as f32)
}

fn drawing(error: impl std::fmt::Display) -> ReportError {
    ReportError::Drawing(error.to_string())
}
