//! Random tensors that depend on a seed alone: not on the device, nor on what else draws from
//! libtorch's global generator.

use std::f64::consts::TAU;

use tch::Tensor;

use common::random::SplitMix64;

/// Draws whole tensors.
#[derive(Debug)]
pub(super) struct Draws(SplitMix64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// float32 values spread evenly over (-`bound`, `bound`].
    pub(super) fn uniform(&mut self, shape: &[i64], bound: f64) -> Tensor {
        let count = shape.iter().product::<i64>() as usize;
        (self.unit(count) * (2.0 * bound) - bound).reshape(shape)
    }

    /// Normally distributed float32 values around zero (Box, Muller: "A note on the generation
    /// of random normal deviates", 1958). Uniforms of 24 bits reach 5.8 deviations.
    pub(super) fn normal(&mut self, shape: &[i64], deviation: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        let pairs = (count as usize).div_ceil(2);
        let radius = (self.unit(pairs).log() * -2.0).sqrt() * deviation;
        let angle = self.unit(pairs) * TAU;
        let values = Tensor::cat(&[&radius * angle.cos(), &radius * angle.sin()], 0);
        values.narrow(0, 0, count).reshape(shape)
    }

    /// `count` values in (0, 1], each a multiple of 2⁻²⁴, so exact in float32. One draw's upper
    /// bits make two of them.
    fn unit(&mut self, count: usize) -> Tensor {
        let mut values = vec![0f32; count];
        for pair in values.chunks_mut(2) {
            let bits = self.0.next_u64();
            for (value, shift) in pair.iter_mut().zip([40, 16]) {
                *value = ((bits >> shift & 0xff_ffff) + 1) as f32 / (1u32 << 24) as f32;
            }
        }
        Tensor::from_slice(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_asked_for() {
        let normal = Draws::new(3).normal(&[501, 401], 0.5);
        assert!(normal.mean(tch::Kind::Float).double_value(&[]).abs() < 5e-3);
        assert!((normal.std(true).double_value(&[]) - 0.5).abs() < 5e-3);
        let kurtosis = (&normal / 0.5).pow_tensor_scalar(4).mean(tch::Kind::Float);
        assert!((kurtosis.double_value(&[]) - 3.0).abs() < 0.1);
        let uniform = Draws::new(3).uniform(&[100_000], 0.25);
        assert!(uniform.abs().max().double_value(&[]) <= 0.25);
        assert!((uniform.std(true).double_value(&[]) - 0.25 / 3f64.sqrt()).abs() < 2e-3);
    }
}
