//! The ten shapes as functions of the plane: negative inside, positive outside, roughly the
//! distance to the edge. Each fits into a circle of radius about 1 around the origin.
//!
//! Only `+ - * /`, comparison, rounding and square root are used: IEEE 754 fixes their every
//! bit, so that all machines draw the same image.

/// The shape in an image of the demo set; its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Checkerboard,
    Circle,
    Crescent,
    Cross,
    Ring,
    Spiral,
    Square,
    Star,
    Stripes,
    Triangle,
}

impl Shape {
    /// In the order of their names, which is the order of the labels.
    pub(super) const ALL: [Self; 10] = [
        Self::Checkerboard,
        Self::Circle,
        Self::Crescent,
        Self::Cross,
        Self::Ring,
        Self::Spiral,
        Self::Square,
        Self::Star,
        Self::Stripes,
        Self::Triangle,
    ];

    /// The name of the class folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Checkerboard => "checkerboard",
            Self::Circle => "circle",
            Self::Crescent => "crescent",
            Self::Cross => "cross",
            Self::Ring => "ring",
            Self::Spiral => "spiral",
            Self::Square => "square",
            Self::Star => "star",
            Self::Stripes => "stripes",
            Self::Triangle => "triangle",
        }
    }

    /// About the distance from (x, y) to the edge, negative inside.
    pub(super) fn distance(self, x: f32, y: f32) -> f32 {
        match self {
            Self::Checkerboard => {
                let (a, b) = (bars(x, 0.85), bars(y, 0.85));
                // Inside exactly one of the two sets of bars.
                (a.min(b)).max(-a.max(b)).max(square(x, y, 0.85))
            }
            Self::Circle => length(x, y) - 0.85,
            Self::Crescent => (length(x, y) - 0.95).max(0.8 - length(x - 0.5, y)),
            Self::Cross => {
                let (x, y) = (x.abs(), y.abs());
                (x - 0.25).max(y - 0.95).min((x - 0.95).max(y - 0.25))
            }
            Self::Ring => (length(x, y) - 0.72).abs() - 0.18,
            Self::Spiral => spiral(x, y),
            Self::Square => square(x, y, 0.75),
            Self::Star => star(x, y),
            Self::Stripes => bars(x, 0.5).max(square(x, y, 0.85)),
            Self::Triangle => {
                // Three half planes, normals 120° apart.
                let side = |nx: f32, ny: f32| nx * x + ny * y - 0.5;
                side(0.0, 1.0)
                    .max(side(0.866_025_4, -0.5))
                    .max(side(-0.866_025_4, -0.5))
            }
        }
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn square(x: f32, y: f32, half: f32) -> f32 {
    x.abs().max(y.abs()) - half
}

/// Parallel bars, as wide as the gaps between them.
fn bars(x: f32, period: f32) -> f32 {
    let x = x / period;
    ((x - x.round()).abs() - 0.25) * period
}

/// A pentagram: the points that at most one of a pentagon's five sides shuts out, so the
/// second largest of the five distances decides.
fn star(x: f32, y: f32) -> f32 {
    // cos and sin of 90°, 162°, 234°, 306°, 18°.
    const NORMALS: [(f32, f32); 5] = [
        (0.0, 1.0),
        (-0.951_056_5, 0.309_017),
        (-0.587_785_25, -0.809_017),
        (0.587_785_25, -0.809_017),
        (0.951_056_5, 0.309_017),
    ];
    let (mut largest, mut second) = (f32::MIN, f32::MIN);
    for (nx, ny) in NORMALS {
        let distance = nx * x + ny * y - 0.33;
        second = second.max(distance.min(largest));
        largest = largest.max(distance);
    }
    second
}

/// An Archimedean spiral: the radius grows by one pitch a turn.
fn spiral(x: f32, y: f32) -> f32 {
    const PITCH: f32 = 0.36;
    let radius = length(x, y);
    let turn = radius / PITCH - turns(x, y);
    let band = (turn - turn.round()).abs() * PITCH - 0.085;
    band.max(radius - 0.98)
}

/// The angle of (x, y) in turns, -0.5 to 0.5, good to 0.001. Within an octant
/// atan q ≈ π/4 q + 0.273 q (1 - q): Rajan et al., "Efficient approximations for the
/// arctangent function", IEEE Signal Processing Magazine 23(3), 2006.
fn turns(x: f32, y: f32) -> f32 {
    let (ax, ay) = (x.abs(), y.abs());
    let q = ax.min(ay) / ax.max(ay).max(f32::MIN_POSITIVE);
    let octant = q * (0.125 + 0.043_45 * (1.0 - q));
    let quadrant = if ay > ax { 0.25 - octant } else { octant };
    let half = if x < 0.0 { 0.5 - quadrant } else { quadrant };
    if y < 0.0 { -half } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angle_is_near_the_library_function() {
        for degree in -179..180 {
            let (sin, cos) = (degree as f32).to_radians().sin_cos();
            assert!(
                (turns(cos, sin) - degree as f32 / 360.0).abs() < 0.001,
                "{degree}°"
            );
        }
    }

    #[test]
    fn shapes_fill_a_similar_part_of_the_plane_and_stay_within_reach() {
        for shape in Shape::ALL {
            let grid = || (-60..=60).map(|i| i as f32 / 40.0);
            let inside: Vec<_> = grid()
                .flat_map(|y| grid().map(move |x| (x, y)))
                .filter(|&(x, y)| shape.distance(x, y) < 0.0)
                .collect();
            let area = inside.len() as f32 / 1600.0;
            assert!((0.9..2.6).contains(&area), "{shape:?} covers {area}");
            let reach = inside
                .iter()
                .map(|&(x, y)| length(x, y))
                .fold(0.0, f32::max);
            assert!((0.8..1.25).contains(&reach), "{shape:?} reaches {reach}");
        }
    }
}
