//! The one stop decision of a run, taken on the global validation loss.

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Epochs without improvement that end the run.
    pub patience: u32,
    /// An improvement is a loss below `best - min_delta`, strictly.
    pub min_delta: f64,
}

/// What has been seen so far.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyStopping {
    rule: Rule,
    standing: Standing,
}

/// Where early stopping stands after some epochs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// The best epoch, once there is one.
    pub best: Option<Best>,
    /// Epochs since the best one.
    pub wait: u32,
}

/// The best epoch so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// From 1.
    pub epoch: u32,
    /// Mean validation loss.
    pub loss: f64,
}

impl EarlyStopping {
    /// Nothing seen yet.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            standing: Standing::default(),
        }
    }

    /// Takes the next epoch's loss into account; whether it is the best so far. A loss that is not
    /// a number never improves.
    pub fn observe(&mut self, epoch: u32, loss: f64) -> bool {
        let improved = match self.standing.best {
            None => loss.is_finite(),
            Some(best) => loss < best.loss - self.rule.min_delta,
        };
        if improved {
            self.standing = Standing {
                best: Some(Best { epoch, loss }),
                wait: 0,
            };
        } else {
            self.standing.wait += 1;
        }
        improved
    }

    /// The best epoch, once there is one.
    pub fn best(&self) -> Option<Best> {
        self.standing.best
    }

    /// Whether the rule has spoken.
    pub fn is_out_of_patience(&self) -> bool {
        self.standing.wait >= self.rule.patience
    }

    /// The best epoch, and how long it is ago.
    pub fn standing(&self) -> Standing {
        self.standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_published_curve_stops_after_epoch_eight_with_epoch_five_as_best() {
        let mut stopping = EarlyStopping::new(Rule {
            patience: 3,
            min_delta: 0.0,
        });
        let curve = [0.361, 0.306, 0.264, 0.222, 0.208, 0.252, 0.358, 0.300];
        let judged = curve.iter().zip(1..).map(|(&loss, epoch)| {
            let improved = stopping.observe(epoch, loss);
            (improved, stopping.is_out_of_patience())
        });
        let judged: Vec<_> = judged.collect();
        let waits = (false, false);
        assert_eq!(judged[4..], [(true, false), waits, waits, (false, true)]);
        assert_eq!(
            stopping.best(),
            Some(Best {
                epoch: 5,
                loss: 0.208
            })
        );
    }

    proptest! {
        /// Against the rule in words: stop at the first epoch that closes a row of `patience`
        /// epochs, none of which went below the best of all epochs before it by min_delta.
        #[test]
        fn agrees_with_the_rule_in_words(
            losses in prop::collection::vec(0u32..12, 1..40), patience in 1u32..6, delta in 0u32..3,
        ) {
            let losses: Vec<f64> = losses.into_iter().map(f64::from).collect();
            let delta = f64::from(delta);
            let mut kept = f64::INFINITY;
            let improved: Vec<bool> = losses.iter().map(|&loss| {
                let better = loss < kept - delta;
                if better { kept = loss; }
                better
            }).collect();
            let expected = (0..losses.len()).find(|&at| {
                at + 1 >= patience as usize
                    && improved[at + 1 - patience as usize..=at].iter().all(|better| !better)
            });
            let mut stopping = EarlyStopping::new(Rule { patience, min_delta: delta });
            let found = losses.iter().enumerate().position(|(at, &loss)| {
                stopping.observe(at as u32 + 1, loss);
                stopping.is_out_of_patience()
            });
            prop_assert_eq!(found, expected);
        }
    }
}
