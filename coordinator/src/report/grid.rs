//! A grid of images under their predicted and true class names.

use plotters::prelude::*;

use super::{ReportError, encode, font};

const WHAT: &str = "predictions grid";
const TILE: u32 = 200;
const TEXT: u32 = 48;
const GAP: u32 = 14;
const COLUMNS: usize = 4;
/// Characters of a class name that fit above a tile.
const FITS: usize = 21;
const RIGHT: RGBColor = RGBColor(0, 100, 70);
const WRONG: RGBColor = RGBColor(190, 30, 20);

/// One image and what the network makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    /// RGB, `size * size * 3` bytes.
    pub pixels: Vec<u8>,
    /// Side in pixels.
    pub size: u32,
    /// Class name.
    pub predicted: String,
    /// Class name.
    pub truth: String,
    /// Of the predicted class, 0 to 1.
    pub probability: f32,
}

/// The grid; wrong predictions are framed in red and name the truth.
///
/// # Errors
/// When there is no tile, one has too few pixels, or drawing fails.
pub fn render(tiles: &[Tile]) -> Result<Vec<u8>, ReportError> {
    if tiles.is_empty() {
        return Err(ReportError::new(WHAT, "no image to show"));
    }
    if tiles
        .iter()
        .any(|t| t.size == 0 || t.pixels.len() != (t.size * t.size * 3) as usize)
    {
        return Err(ReportError::new(WHAT, "an image of the wrong size"));
    }
    font::register();
    let columns = COLUMNS.min(tiles.len());
    let rows = tiles.len().div_ceil(columns);
    let size = (
        columns as u32 * (TILE + GAP) + GAP,
        rows as u32 * (TILE + TEXT + GAP) + GAP,
    );
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    draw(&mut pixels, size, tiles, columns).map_err(|error| ReportError::new(WHAT, error))?;
    encode(WHAT, &pixels, size)
}

fn draw(
    pixels: &mut [u8],
    size: (u32, u32),
    tiles: &[Tile],
    columns: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (place, tile) in tiles.iter().enumerate() {
        let x = (GAP + (place % columns) as u32 * (TILE + GAP)) as i32;
        let y = (GAP + (place / columns) as u32 * (TILE + TEXT + GAP)) as i32;
        let right = tile.predicted == tile.truth;
        let color = if right { RIGHT } else { WRONG };
        let mark = if right { "" } else { "wrong: " };
        let name = shortened(&tile.predicted, FITS - mark.len());
        let style = ("sans-serif", 17).into_font().color(&color);
        root.draw(&Text::new(format!("{mark}{name}"), (x, y), style))?;
        let second = if right {
            format!("{:.0} %", 100.0 * tile.probability)
        } else {
            format!("is {}", shortened(&tile.truth, FITS - 3))
        };
        let style = ("sans-serif", 15).into_font().color(&BLACK.mix(0.7));
        root.draw(&Text::new(second, (x, y + 23), style))?;
        let top = y + TEXT as i32;
        let image = BitMapElement::with_owned_buffer((x, top), (TILE, TILE), scaled(tile))
            .ok_or("an image of the wrong size")?;
        root.draw(&image)?;
        if !right {
            let corners = [
                (x - 3, top - 3),
                (x + TILE as i32 + 2, top + TILE as i32 + 2),
            ];
            for inset in 0..3 {
                let frame = [
                    (corners[0].0 + inset, corners[0].1 + inset),
                    (corners[1].0 - inset, corners[1].1 - inset),
                ];
                root.draw(&Rectangle::new(frame, WRONG))?;
            }
        }
    }
    root.present()?;
    Ok(())
}

/// The nearest pixel for each of the tile on paper.
fn scaled(tile: &Tile) -> Vec<u8> {
    let mut out = Vec::with_capacity((TILE * TILE * 3) as usize);
    for y in 0..TILE {
        for x in 0..TILE {
            let source = (y * tile.size / TILE * tile.size + x * tile.size / TILE) as usize * 3;
            out.extend_from_slice(&tile.pixels[source..source + 3]);
        }
    }
    out
}

fn shortened(name: &str, fits: usize) -> String {
    if name.chars().count() <= fits {
        return name.to_owned();
    }
    name.chars().take(fits - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (Vec<u8>, u32, u32) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (pixels, info.width, info.height)
    }

    #[test]
    fn a_wrong_tile_is_marked_and_a_right_one_is_not() {
        let tile = |predicted: &str| Tile {
            pixels: vec![77; 8 * 8 * 3],
            size: 8,
            predicted: predicted.to_owned(),
            truth: "a_class_with_a_very_long_name_indeed".to_owned(),
            probability: 0.5,
        };
        let red = |tile: Tile| {
            let (pixels, ..) = decode(&render(&[tile]).unwrap());
            pixels
                .chunks_exact(3)
                .filter(|p| *p == [WRONG.0, WRONG.1, WRONG.2])
                .count()
        };
        assert!(red(tile("cat")) > 1000);
        assert_eq!(red(tile("a_class_with_a_very_long_name_indeed")), 0);
        let (_, width, height) = decode(&render(&vec![tile("cat"); 6]).unwrap());
        assert_eq!((width, height), (4 * 214 + 14, 2 * 262 + 14));
        assert!(render(&[]).is_err());
    }
}
