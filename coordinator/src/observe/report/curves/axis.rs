//! One axis: a range with round ends, where its ticks are, and how they read.
//!
//! Owns the numbers of an axis. Must not draw.

/// The most ticks on an axis.
const MAX_TICKS: f64 = 10.0;

/// A range of values with ticks at round numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Whole epochs from `first` to `last`, with room at both ends.
    pub(super) fn epochs(first: u32, last: u32) -> Self {
        let (first, last) = (f64::from(first), f64::from(last));
        let room = ((last - first) * 0.03).max(0.5);
        let step = round_step((last - first) / MAX_TICKS).max(1.0);
        Self {
            low: first - room,
            high: last + room,
            step,
        }
    }

    /// Losses: from zero, unless the curves would then lie flat at the top.
    pub(super) fn losses(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        let low = if low >= 0.0 && low < 0.6 * high {
            0.0
        } else {
            low
        };
        Self::round(low, high)
    }

    /// Percentages: round ends, never beyond 0 and 100.
    pub(super) fn percent(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 100.0));
        let axis = Self::round(low, high);
        if low < 0.0 || high > 100.0 {
            return axis;
        }
        Self {
            low: axis.low.max(0.0),
            high: axis.high.min(100.0),
            ..axis
        }
    }

    /// `low` and `high` moved outwards to multiples of a round step.
    fn round(low: f64, high: f64) -> Self {
        // One value, or values equal to the last digit, still need a range around them. Dividing
        // first keeps the spread of the largest numbers finite.
        let spread = (high / MAX_TICKS - low / MAX_TICKS) * MAX_TICKS;
        let least = (high.abs().max(low.abs()) * 0.01).max(1e-9);
        let (low, high) = if spread < least {
            (low - least, high + least)
        } else {
            (low, high)
        };
        let step = round_step((high - low) / (MAX_TICKS * 0.7));
        Self {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            step,
        }
    }

    /// The values of the ticks, rising.
    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let (step, slack) = (self.step, 1e-6);
        let first = (self.low / step - slack).ceil();
        let last = (self.high / step + slack).floor();
        let count = if first.is_finite() {
            (last - first).clamp(0.0, 50.0) as u32
        } else {
            0
        };
        (0..=count).map(move |i| (first + f64::from(i)) * step)
    }

    /// Where `value` lies between the places of the lower and the upper end.
    pub(super) fn place(&self, value: f64, at_low: f64, at_high: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        at_low + share * (at_high - at_low)
    }

    /// `tick` with as many digits as the step needs.
    pub(super) fn label(&self, tick: f64) -> String {
        // What is left of a sum that should be zero would read "-0", or have an exponent.
        let tick = if tick.abs() < self.step * 1e-6 {
            0.0
        } else {
            tick
        };
        let digits = -self.step.log10().floor();
        if tick != 0.0 && (tick.abs().max(self.step) >= 1e5 || digits > 4.0) {
            return format!("{tick:.1e}");
        }
        let digits = digits.min(4.0);
        format!("{tick:.*}", digits.max(0.0) as usize)
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .map(|value| (value, value))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    if least.is_nan() || least <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|m| m * power >= least * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_few_and_cover_the_values() {
        assert_eq!(labels(&Axis::epochs(1, 1)), ["1"]);
        assert_eq!(labels(&Axis::epochs(1, 8)).len(), 8);
        assert_eq!(labels(&Axis::epochs(1, 200)).first().unwrap(), "0");
        let from_zero = labels(&Axis::losses([0.361, 0.208].into_iter()));
        assert_eq!(from_zero, ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        let above_zero = labels(&Axis::losses([0.361, 0.308].into_iter()));
        assert_eq!(
            above_zero,
            [
                "0.30", "0.31", "0.32", "0.33", "0.34", "0.35", "0.36", "0.37"
            ]
        );
        assert_eq!(
            labels(&Axis::percent([97.0, 99.9].into_iter()))
                .last()
                .unwrap(),
            "100.0"
        );
    }

    #[test]
    fn extreme_values_keep_the_axis_usable() {
        for values in [
            vec![],
            vec![0.0],
            vec![2.0, 2.0],
            vec![1e-30],
            vec![0.1, 1e300],
            vec![-3.0],
        ] {
            let axis = Axis::losses(values.iter().copied());
            assert!(axis.ticks().count() >= 2, "{values:?}: {axis:?}");
            assert!(axis.ticks().count() <= 12, "{values:?}: {axis:?}");
            for value in values {
                assert!(
                    (0.0..=1.0).contains(&axis.place(value, 0.0, 1.0)),
                    "{value}: {axis:?}"
                );
            }
        }
    }
}
