//! Which rank the others wait for: its median busy time of a step over the group's.

use std::collections::VecDeque;

/// The last steps of a rank that the median is taken over.
const WINDOW: usize = 32;

/// The last busy seconds of each rank.
#[derive(Debug, Default)]
pub(super) struct Stragglers(Vec<VecDeque<f64>>);

impl Stragglers {
    /// `ranks` ranks of which nothing is known.
    pub(super) fn of(ranks: usize) -> Self {
        Self(vec![VecDeque::with_capacity(WINDOW); ranks])
    }

    /// Adds a step, without the time that the rank waited for the others in it.
    pub(super) fn add(&mut self, rank: usize, busy_seconds: f64) {
        if let Some(steps) = self.0.get_mut(rank) {
            if steps.len() == WINDOW {
                steps.pop_front();
            }
            steps.push_back(busy_seconds);
        }
    }

    /// Each rank's ratio; empty until all ranks have made a step.
    pub(super) fn ratios(&self) -> Vec<f64> {
        let medians: Option<Vec<f64>> = self.0.iter().map(|steps| median(steps.iter())).collect();
        let Some(medians) = medians else {
            return Vec::new();
        };
        let group = median(medians.iter()).filter(|group| *group > 0.0);
        let ratio = |rank: &f64| group.map_or(1.0, |group| rank / group);
        medians.iter().map(ratio).collect()
    }
}

/// The middle value; the lower one of two.
fn median<'a>(values: impl Iterator<Item = &'a f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_rank_stands_out_and_one_slow_step_does_not() {
        let mut stragglers = Stragglers::of(3);
        assert!(stragglers.ratios().is_empty());
        for step in 0..100 {
            let hiccup = if step == 90 { 9.0 } else { 1.0 };
            stragglers.add(0, 0.1 * hiccup);
            stragglers.add(1, 0.15);
            stragglers.add(2, 0.1);
        }
        let ratios = stragglers.ratios();
        assert!((ratios[1] - 1.5).abs() < 1e-9, "{ratios:?}");
        assert!((ratios[0] - 1.0).abs() < 1e-9, "{ratios:?}");
        stragglers.add(9, 1.0);
    }
}
