//! The grid of predictions: images under their predicted and true class names.
//!
//! Owns the layout of `predictions.png`. Must not choose which images are shown. A wrong prediction
//! is marked by a cross, a frame and a colour, so that no mark depends on colour alone.

use anyhow::{anyhow, ensure};
use plotters::element::{BitMapElement, Circle, PathElement, Rectangle};
use plotters::style::{Color, RGBColor};

use super::sheet::{
    self, Area, FAINT, GREEN, GREY, INK, PAPER, SCALE, VERMILION, fit, font, px, text, width,
};

/// The most tiles that one image takes.
pub const MAX_TILES: usize = 25;

/// One validation image and what the model made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    /// RGB bytes, row by row from the top left: 3·size² of them.
    pub pixels: Vec<u8>,
    /// Edge of the square image in pixels.
    pub size: u32,
    /// Name of the class with the highest probability.
    pub predicted: String,
    /// Name of the true class.
    pub truth: String,
    /// The model's probability for `predicted`, 0 to 1.
    pub probability: f32,
}

impl Tile {
    fn is_right(&self) -> bool {
        self.predicted == self.truth
    }

    fn probability(&self) -> String {
        if self.probability.is_finite() {
            format!("{:.0} %", 100.0 * self.probability.clamp(0.0, 1.0))
        } else {
            "?".to_owned()
        }
    }
}

/// Edge of an image in the grid.
const IMAGE: u32 = 196;
/// Height of the two lines of text over an image.
const CAPTION: u32 = 46;
/// Space between tiles.
const GAP: u32 = 26;
/// Space around everything.
const MARGIN: u32 = 30;
/// Height of the title.
const HEADER: u32 = 62;
/// A single column is made wide enough for the title.
const MIN_WIDTH: u32 = 380;
/// Where text begins, to the right of a symbol.
const INDENT: u32 = 22;

/// Vermilion dark enough for small text on white.
const WRONG: RGBColor = RGBColor(0xb3, 0x47, 0x00);

/// A position on the sheet.
type Point = (i32, i32);

/// Columns and rows for `count` tiles: a row up to three, then near a square.
fn shape(count: usize) -> (u32, u32) {
    let columns = if count <= 3 {
        count
    } else {
        (count as f64).sqrt().ceil() as usize
    };
    (columns as u32, count.div_ceil(columns) as u32)
}

/// Draws `tiles`, 1 to [`MAX_TILES`] of them, in reading order as one RGB PNG.
///
/// # Errors
/// There are no tiles or too many, or a tile's bytes are not 3·size² (or size is 0).
pub fn render(tiles: &[Tile]) -> anyhow::Result<Vec<u8>> {
    check(tiles)?;
    let (columns, rows) = shape(tiles.len());
    let content = columns * (IMAGE + GAP) - GAP;
    let width = (content + 2 * MARGIN).max(MIN_WIDTH);
    let height = MARGIN + HEADER + rows * (CAPTION + IMAGE + GAP) - GAP + MARGIN;
    sheet::png((width, height), |area| {
        header(area, tiles)?;
        for (tile, i) in tiles.iter().zip(0..) {
            let (column, row) = (i % columns, i / columns);
            let left = px(MARGIN + column * (IMAGE + GAP));
            let top = px(MARGIN + HEADER + row * (CAPTION + IMAGE + GAP));
            draw(area, tile, (left, top))?;
        }
        Ok(())
    })
}

fn check(tiles: &[Tile]) -> anyhow::Result<()> {
    let count = tiles.len();
    ensure!(count > 0, "the validation set gave no image");
    ensure!(
        count <= MAX_TILES,
        "{count} predictions do not fit into one image: at most {MAX_TILES} do"
    );
    for (index, tile) in tiles.iter().enumerate() {
        let (size, actual) = (tile.size, tile.pixels.len());
        let expected = u64::from(size).pow(2).saturating_mul(3);
        ensure!(
            size > 0 && actual as u64 == expected,
            "prediction {index} has {actual} bytes of pixels, {size}x{size} RGB needs {expected}"
        );
    }
    Ok(())
}

fn header(area: &Area, tiles: &[Tile]) -> anyhow::Result<()> {
    let (mut x, y) = (px(MARGIN), px(MARGIN));
    let title = "Predictions on validation images";
    text(area, title, &font(25, INK)?, (x, y + px(4)))?;
    let right = tiles.iter().filter(|tile| tile.is_right()).count();
    for (is_right, label) in [
        (true, format!("{right} right")),
        (false, format!("{} wrong", tiles.len() - right)),
    ] {
        let style = font(15, GREY)?;
        symbol(area, is_right, (x + px(8), y + px(34)))?;
        text(area, &label, &style, (x + px(INDENT), y + px(34)))?;
        x += px(INDENT + 20) + width(&label, &style)?;
    }
    Ok(())
}

fn draw(area: &Area, tile: &Tile, (left, top): Point) -> anyhow::Result<()> {
    let (right, image_top) = (left + px(IMAGE), top + px(CAPTION));
    let bottom = image_top + px(IMAGE);
    let (indented, room) = (left + px(INDENT), px(IMAGE - INDENT));

    symbol(area, tile.is_right(), (left + px(8), top + px(9)))?;
    let name = font(17, if tile.is_right() { INK } else { WRONG })?;
    let predicted = fit(&tile.predicted, &name, room)?;
    text(area, &predicted, &name, (indented, top + px(9)))?;
    let detail = font(15, GREY)?;
    let truth = fit(&format!("true: {}", tile.truth), &detail, room)?;
    text(area, &truth, &detail, (indented, top + px(30)))?;

    // A hairline holds images with a white background together.
    let frames: &[_] = if tile.is_right() {
        &[(1, FAINT)]
    } else {
        &[(6, VERMILION), (2, PAPER)]
    };
    for &(outset, colour) in frames {
        let corner = (left - px(outset), image_top - px(outset));
        // A rectangle has its last row and column, too.
        let opposite = (right + px(outset) - 1, bottom + px(outset) - 1);
        area.draw(&Rectangle::new([corner, opposite], colour.filled()))?;
    }
    let edge = IMAGE * SCALE;
    let pixels = stretched(&tile.pixels, tile.size as usize, edge);
    let image = BitMapElement::with_owned_buffer((left, image_top), (edge, edge), pixels);
    area.draw(&image.ok_or_else(|| anyhow!("an image does not fit"))?)?;

    let chip = font(15, INK)?;
    let probability = tile.probability();
    let start = right - width(&probability, &chip)? - px(12);
    let corners = [(start, bottom - px(22)), (right - 1, bottom - 1)];
    area.draw(&Rectangle::new(corners, PAPER.filled()))?;
    text(area, &probability, &chip, (start + px(6), bottom - px(12)))
}

/// A tick or a cross on a disc.
fn symbol(area: &Area, is_right: bool, (x, y): Point) -> anyhow::Result<()> {
    let disc = if is_right { GREEN } else { VERMILION };
    area.draw(&Circle::new((x, y), px(8), disc.filled()))?;
    let strokes: &[&[Point]] = if is_right {
        &[&[(-7, 0), (-2, 6), (7, -5)]]
    } else {
        &[&[(-5, -5), (6, 6)], &[(-5, 6), (6, -5)]]
    };
    for stroke in strokes {
        let points: Vec<Point> = stroke.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        area.draw(&PathElement::new(points, PAPER.stroke_width(2 * SCALE)))?;
    }
    Ok(())
}

/// A square RGB image of `size` pixels each way stretched to `edge` (bilinear).
fn stretched(pixels: &[u8], size: usize, edge: u32) -> Vec<u8> {
    // The two source pixels for a target pixel, and the weight of the second.
    let tap = |i: u32| {
        let at = (i as f32 + 0.5) * size as f32 / edge as f32 - 0.5;
        let at = at.clamp(0.0, (size - 1) as f32);
        (at as usize, (at as usize + 1).min(size - 1), at.fract())
    };
    let taps: Vec<_> = (0..edge).map(tap).collect();
    let mut stretched = Vec::with_capacity(3 * taps.len() * taps.len());
    for &(y0, y1, fy) in &taps {
        for &(x0, x1, fx) in &taps {
            for channel in 0..3 {
                let at = |x, y| f32::from(pixels[3 * (y * size + x) + channel]);
                let above = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * fx;
                let below = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * fx;
                stretched.push((above + (below - above) * fy).round() as u8);
            }
        }
    }
    stretched
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn tile(predicted: &str, truth: &str) -> Tile {
        Tile {
            pixels: [9, 99, 199].repeat(16),
            size: 4,
            predicted: predicted.into(),
            truth: truth.into(),
            probability: 0.75,
        }
    }

    /// Width, height and RGB bytes.
    fn decode(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    #[test]
    fn images_lie_in_their_places_and_the_wrong_one_is_framed() {
        let png = render(&[tile("crab", "crab"), tile("crab", "lobster")]).unwrap();
        let (width, height, pixels) = decode(&png);
        assert_eq!(width, 2 * MARGIN + 2 * IMAGE + GAP);
        assert_eq!(height, 2 * MARGIN + HEADER + CAPTION + IMAGE);
        let at = |x: u32, y: u32| {
            let start = 3 * (y * width + x) as usize;
            [pixels[start], pixels[start + 1], pixels[start + 2]]
        };
        let (top, middle) = (
            MARGIN + HEADER + CAPTION,
            MARGIN + HEADER + CAPTION + IMAGE / 2,
        );
        let RGBColor(r, g, b) = VERMILION;
        for (column, frame) in [(0, [255, 255, 255]), (1, [r, g, b])] {
            let left = MARGIN + column * (IMAGE + GAP);
            assert_eq!(at(left, top), [9, 99, 199]);
            assert_eq!(at(left + IMAGE - 1, top), [9, 99, 199]);
            assert_eq!(at(left - 4, middle), frame);
            assert_eq!(at(left + IMAGE + 3, middle), frame);
        }
    }

    #[test]
    fn every_count_up_to_the_limit_has_a_place_and_names_are_drawn() {
        for count in 1..=MAX_TILES {
            let (columns, rows) = shape(count);
            assert!(columns <= 5 && (columns * rows) as usize >= count);
            assert!((columns * (rows - 1)) < count as u32, "no row is empty");
        }
        let long = "a_class_with_an_uncommonly_long_name_that_cannot_fit";
        let first = render(&[tile("crab", "crab")]).unwrap();
        assert_ne!(first, render(&[tile("crayfish", "crayfish")]).unwrap());
        // What does not fit is cut: the same start gives the same image.
        let cut = render(&[tile(long, "crab")]).unwrap();
        assert_eq!(
            cut,
            render(&[tile(&format!("{long}_at_all"), "crab")]).unwrap()
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_named() {
        let crab = || tile("crab", "crab");
        let sized = |size, pixels| Tile {
            pixels,
            size,
            ..crab()
        };
        for (tiles, message) in [
            (vec![], "gave no image"),
            (vec![crab(); MAX_TILES + 1], "26 predictions do not fit"),
            (
                vec![crab(), sized(4, vec![0; 47])],
                "prediction 1 has 47 bytes of pixels, 4x4 RGB needs 48",
            ),
            (vec![sized(0, vec![])], "prediction 0 has 0 bytes"),
        ] {
            let error = render(&tiles).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
