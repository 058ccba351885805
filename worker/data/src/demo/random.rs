//! The random numbers of the demo images: for a seed, the same on every machine.

use common::random::SplitMix64;

/// Draws the properties of one image.
#[derive(Debug)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits fill an f32's mantissa exactly.
        low + (high - low) * ((self.0.next_u64() >> 40) as f32 / (1u32 << 24) as f32)
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// `(cos, sin)` of an angle between -22.6° and 22.6°, from the tangent t of its half:
    /// (1 - t²) / (1 + t²) and 2t / (1 + t²). The last bit of `sin` and `cos` differs
    /// between C libraries, division is the same everywhere.
    pub(super) fn tilt(&mut self) -> (f32, f32) {
        let t = self.between(-0.2, 0.2);
        let square = t * t;
        ((1.0 - square) / (1.0 + square), 2.0 * t / (1.0 + square))
    }

    /// Bell-shaped around 0 with deviation 1: a sum of three uniforms.
    pub(super) fn bell(&mut self) -> f32 {
        let bits = self.0.next_u64();
        let part = |shift: u32| ((bits >> shift) & 0xFFFF) as f32 / 32768.0 - 1.0;
        part(0) + part(16) + part(32)
    }
}
