//! Why an image could not be made.

use plotters::drawing::DrawingAreaErrorKind;

/// Why [`curves::render`](super::curves::render) or [`grid::render`](super::grid::render) made no
/// image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There is no epoch to draw.
    #[error("no curves to draw: the run finished no epoch")]
    NoEpochs,

    /// There is no tile to draw.
    #[error("no predictions to draw: the validation set gave no image")]
    NoTiles,

    /// More tiles than stay readable.
    #[error("{count} predictions do not fit into one image: pass at most {limit}")]
    TooManyTiles {
        /// How many there are.
        count: usize,
        /// How many fit.
        limit: usize,
    },

    /// A tile's pixels are not those of a square RGB image of its size.
    #[error("prediction {index} has {actual} bytes of pixels, {size}x{size} RGB needs {expected}")]
    TilePixels {
        /// Position of the tile, from 0.
        index: usize,
        /// Claimed edge in pixels.
        size: u32,
        /// Bytes needed: 3 per pixel.
        expected: u64,
        /// Bytes there.
        actual: usize,
    },

    /// The built-in font cannot be read.
    #[error("the built-in font is unreadable: build the program anew")]
    Font,

    /// plotters refused a shape.
    #[error("cannot draw the image: {0}")]
    Drawing(String),

    /// The PNG encoder refused the image.
    #[error("cannot encode the image: {0}")]
    Encoding(#[from] png::EncodingError),
}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for ReportError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Drawing(error.to_string())
    }
}
