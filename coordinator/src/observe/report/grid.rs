//! The grid of predictions: images under their predicted and true class names.
//!
//! Owns the layout of `predictions.png`. Must not choose which images are shown. A wrong prediction
//! is marked by a cross, a frame and a colour, so that no mark depends on colour alone.

use super::canvas::{Align, Canvas, FAINT, GREEN, GREY, INK, PAPER, Point, Type, VERMILION};
use super::error::ReportError;
use super::font;
use plotters::style::RGBColor;

/// The most tiles that one picture takes.
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
    /// Name of the class that the image is of.
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

/// Edge of an image in the picture.
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

/// Vermilion dark enough for small text on white.
const WRONG: RGBColor = RGBColor(0xb3, 0x47, 0x00);

const NAME: Type = Type {
    size: 17.0,
    colour: INK,
    strong: true,
};
const DETAIL: Type = Type {
    size: 14.5,
    colour: GREY,
    strong: false,
};

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
/// [`ReportError::NoTiles`], [`ReportError::TooManyTiles`], or [`ReportError::TilePixels`] where a
/// tile's bytes are not 3·size² (or size is 0).
pub fn render(tiles: &[Tile]) -> Result<Vec<u8>, ReportError> {
    check(tiles)?;
    let (columns, rows) = shape(tiles.len());
    let content = columns * (IMAGE + GAP) - GAP;
    let width = (content + 2 * MARGIN).max(MIN_WIDTH);
    let height = MARGIN + HEADER + rows * (CAPTION + IMAGE + GAP) - GAP + MARGIN;
    let mut canvas = Canvas::new(width, height);
    header(&mut canvas, tiles)?;
    for (tile, i) in tiles.iter().zip(0..) {
        let (column, row) = (i % columns, i / columns);
        let left = MARGIN + column * (IMAGE + GAP);
        let top = MARGIN + HEADER + row * (CAPTION + IMAGE + GAP);
        draw(&mut canvas, tile, (f64::from(left), f64::from(top)))?;
    }
    canvas.png()
}

fn check(tiles: &[Tile]) -> Result<(), ReportError> {
    if tiles.is_empty() {
        return Err(ReportError::NoTiles);
    }
    if tiles.len() > MAX_TILES {
        return Err(ReportError::TooManyTiles {
            count: tiles.len(),
            limit: MAX_TILES,
        });
    }
    for (index, tile) in tiles.iter().enumerate() {
        let (size, actual) = (tile.size, tile.pixels.len());
        let expected = u64::from(size).pow(2).saturating_mul(3);
        if size == 0 || actual as u64 != expected {
            return Err(ReportError::TilePixels {
                index,
                size,
                expected,
                actual,
            });
        }
    }
    Ok(())
}

fn header(canvas: &mut Canvas, tiles: &[Tile]) -> Result<(), ReportError> {
    let (x, y) = (f64::from(MARGIN), f64::from(MARGIN));
    let title = Type {
        size: 25.0,
        colour: INK,
        strong: true,
    };
    canvas.text(
        "Predictions on validation images",
        (x, y + 14.0),
        Align::Left,
        title,
    )?;
    let right = tiles.iter().filter(|tile| tile.is_right()).count();
    let mut x = x;
    for (is_right, label) in [
        (true, format!("{right} right")),
        (false, format!("{} wrong", tiles.len() - right)),
    ] {
        symbol(canvas, is_right, (x + 8.0, y + 34.0))?;
        canvas.text(&label, (x + 22.0, y + 39.0), Align::Left, DETAIL)?;
        x += 22.0 + font::width(&label, DETAIL.size)? + 20.0;
    }
    Ok(())
}

fn draw(canvas: &mut Canvas, tile: &Tile, (left, top): Point) -> Result<(), ReportError> {
    let edge = f64::from(IMAGE);
    let (right, image_top) = (left + edge, top + f64::from(CAPTION));
    let is_right = tile.is_right();

    symbol(canvas, is_right, (left + 8.0, top + 9.0))?;
    let predicted = font::fit(&tile.predicted, NAME.size, edge - 22.0)?;
    let colour = if is_right { INK } else { WRONG };
    canvas.text(
        &predicted,
        (left + 22.0, top + 15.0),
        Align::Left,
        Type { colour, ..NAME },
    )?;
    let truth = font::fit(&format!("true: {}", tile.truth), DETAIL.size, edge - 22.0)?;
    canvas.text(&truth, (left + 22.0, top + 35.0), Align::Left, DETAIL)?;

    // A hairline holds images with a white background together.
    let frames: &[_] = if is_right {
        &[(1.0, FAINT)]
    } else {
        &[(6.0, VERMILION), (2.0, PAPER)]
    };
    for &(outset, colour) in frames {
        let top_left = (left - outset, image_top - outset);
        canvas.block(
            top_left,
            (right + outset, image_top + edge + outset),
            colour,
        )?;
    }
    canvas.image((left, image_top), IMAGE, &tile.pixels, tile.size);
    chip(canvas, &tile.probability(), (right, image_top + edge))
}

/// A short text on paper, in the corner of an image.
fn chip(canvas: &mut Canvas, text: &str, (right, bottom): Point) -> Result<(), ReportError> {
    let width = font::width(text, DETAIL.size)? + 12.0;
    canvas.block((right - width, bottom - 22.0), (right, bottom), PAPER)?;
    let look = Type {
        colour: INK,
        ..DETAIL
    };
    canvas.text(
        text,
        (right - width / 2.0, bottom - 6.0),
        Align::Centre,
        look,
    )
}

/// A tick or a cross on a disc.
fn symbol(canvas: &mut Canvas, is_right: bool, (x, y): Point) -> Result<(), ReportError> {
    canvas.disc((x, y), 8.0, if is_right { GREEN } else { VERMILION })?;
    let strokes: [(Point, Point); 2] = if is_right {
        [((-3.6, 0.2), (-1.0, 2.9)), ((-1.0, 2.9), (3.7, -2.7))]
    } else {
        [((-2.9, -2.9), (2.9, 2.9)), ((-2.9, 2.9), (2.9, -2.9))]
    };
    for ((x0, y0), (x1, y1)) in strokes {
        canvas.line((x + x0, y + y0), (x + x1, y + y1), 1.8, PAPER)?;
    }
    Ok(())
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
        // What does not fit is cut: the same start gives the same picture.
        let cut = render(&[tile(long, "crab")]).unwrap();
        assert_eq!(
            cut,
            render(&[tile(&format!("{long}_at_all"), "crab")]).unwrap()
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_a_typed_error() {
        assert!(matches!(render(&[]), Err(ReportError::NoTiles)));
        let many = vec![tile("crab", "crab"); MAX_TILES + 1];
        assert!(matches!(
            render(&many),
            Err(ReportError::TooManyTiles {
                count: 26,
                limit: 25
            })
        ));
        let mut short = tile("crab", "crab");
        short.pixels.pop();
        let error = render(&[tile("crab", "crab"), short]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prediction 1 has 47 bytes of pixels, 4x4 RGB needs 48"
        );
        let none = Tile {
            pixels: Vec::new(),
            size: 0,
            ..tile("crab", "crab")
        };
        assert!(matches!(
            render(&[none]),
            Err(ReportError::TilePixels { index: 0, .. })
        ));
    }
}
