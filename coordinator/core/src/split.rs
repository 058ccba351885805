//! Training and validation sets.

use super::random::SplitMix64;

const SPLIT_STREAM: u64 = 0x0073_706c_6974;

/// Sample indices of both sets; together they are the input, each exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Ascending.
    pub train: Vec<u32>,
    /// Ascending.
    pub validation: Vec<u32>,
}

impl Split {
    /// Draws `fraction` of `samples` (at least one, and leaving at least one) for validation.
    /// `None` when there are fewer than two samples.
    pub fn new(samples: &[u32], fraction: f64, seed: u64) -> Option<Self> {
        if samples.len() < 2 {
            return None;
        }
        let mut order = samples.to_vec();
        SplitMix64::keyed(&[seed, SPLIT_STREAM]).shuffle(&mut order);
        let wanted = (order.len() as f64 * fraction).round() as usize;
        let mut train = order.split_off(wanted.clamp(1, order.len() - 1));
        order.sort_unstable();
        train.sort_unstable();
        Some(Self {
            train,
            validation: order,
        })
    }
}
