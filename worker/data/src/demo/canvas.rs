//! One image: a shape somewhere in front of a background. Everything but the kind of the shape is
//! random, so that only the shape identifies the class.

use jpeg_encoder::{ColorType, Encoder, EncodingError};

use super::random::Random;
use super::shapes::Shape;

/// Share of images that are greyscale JPEGs, about twice Caltech101's.
const GREY: f32 = 0.1;
/// Cells of the background's cloud pattern along each side.
const CLOUDS: usize = 5;

/// Drawn pixels, one or three channels.
#[derive(Debug)]
pub(super) struct Canvas {
    width: u16,
    height: u16,
    color: ColorType,
    pixels: Vec<u8>,
}

impl Canvas {
    /// Draws this shape with this seed; equal seeds give equal images.
    pub(super) fn draw(shape: Shape, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let grey = random.chance(GREY);
        let width = random.between(112.0, 160.0) as u16;
        let height = random.between(112.0, 160.0) as u16;
        let scene = Scene::new(&mut random, f32::from(width), f32::from(height));
        let noise = random.between(2.0, 10.0);

        let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
        for y in 0..height {
            for x in 0..width {
                let color = scene.color_at(shape, f32::from(x) + 0.5, f32::from(y) + 0.5);
                let mut put = |level: f32| pixels.push((level + noise * random.bell()) as u8);
                if grey {
                    put(luma(color));
                } else {
                    color.into_iter().for_each(put);
                }
            }
        }
        let color = if grey {
            ColorType::Luma
        } else {
            ColorType::Rgb
        };
        Self {
            width,
            height,
            color,
            pixels,
        }
    }

    /// The image as a JPEG file.
    pub(super) fn to_jpeg(&self) -> Result<Vec<u8>, EncodingError> {
        let mut jpeg = Vec::new();
        let encoder = Encoder::new(&mut jpeg, 88);
        encoder.encode(&self.pixels, self.width, self.height, self.color)?;
        Ok(jpeg)
    }
}

/// Where the shape lies, and all colours.
#[derive(Debug)]
struct Scene {
    center: (f32, f32),
    /// Pixels per unit of the shape's plane.
    scale: f32,
    /// Cosine and sine of the rotation.
    turn: (f32, f32),
    /// 1 or -1: mirrored.
    hand: f32,
    shape: [f32; 3],
    background: [f32; 3],
    clouds: [[f32; CLOUDS + 1]; CLOUDS + 1],
    /// Clouds per pixel.
    grid: (f32, f32),
}

impl Scene {
    fn new(random: &mut Random, width: f32, height: f32) -> Self {
        let scale = width.min(height) * random.between(0.34, 0.46);
        let mut place = |side: f32| side * random.between(0.40, 0.60);
        let center = (place(width), place(height));
        let (background, shape) = contrasting(random);
        let strength = random.between(0.0, 30.0);
        let clouds = [(); CLOUDS + 1]
            .map(|()| [(); CLOUDS + 1].map(|()| random.between(-strength, strength)));
        Self {
            center,
            scale,
            turn: random.tilt(),
            hand: if random.chance(0.5) { 1.0 } else { -1.0 },
            shape,
            background,
            clouds,
            grid: (CLOUDS as f32 / width, CLOUDS as f32 / height),
        }
    }

    fn color_at(&self, shape: Shape, x: f32, y: f32) -> [f32; 3] {
        let (dx, dy) = (
            (x - self.center.0) / self.scale,
            (y - self.center.1) / self.scale,
        );
        let (cos, sin) = self.turn;
        let distance = shape.distance((cos * dx + sin * dy) * self.hand, cos * dy - sin * dx);
        // How much of the pixel the shape covers: its edge is one pixel wide.
        let cover = (0.5 - distance * self.scale).clamp(0.0, 1.0);
        let cloud = self.cloud_at(x, y);
        let mix = |c: usize| {
            let behind = self.background[c] + cloud;
            behind + (self.shape[c] - behind) * cover
        };
        [mix(0), mix(1), mix(2)]
    }

    /// Bilinear between the random values at the grid's corners.
    fn cloud_at(&self, x: f32, y: f32) -> f32 {
        let (u, v) = (x * self.grid.0, y * self.grid.1);
        let (column, row) = ((u as usize).min(CLOUDS - 1), (v as usize).min(CLOUDS - 1));
        let (u, v) = (u - column as f32, v - row as f32);
        let along = |row: &[f32; CLOUDS + 1]| row[column] + (row[column + 1] - row[column]) * u;
        let (above, below) = (along(&self.clouds[row]), along(&self.clouds[row + 1]));
        above + (below - above) * v
    }
}

/// Two colours that differ also in a greyscale image.
fn contrasting(random: &mut Random) -> ([f32; 3], [f32; 3]) {
    loop {
        let mut color = || [(); 3].map(|()| random.between(10.0, 245.0));
        let (one, other) = (color(), color());
        if (luma(one) - luma(other)).abs() > 90.0 {
            return (one, other);
        }
    }
}

/// Brightness as JPEG defines it: ITU-R BT.601.
fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}
