//! The layer-wise learning rates of each epoch.

/// The parameter groups of ResNet18, from the input to the head.
pub const PARAMETER_GROUPS: [&str; 6] = ["stem", "layer1", "layer2", "layer3", "layer4", "fc"];

/// One learning rate for each of [`PARAMETER_GROUPS`].
pub type GroupLrs = [f64; PARAMETER_GROUPS.len()];

/// The learning rate of each of [`PARAMETER_GROUPS`], with its name.
pub fn by_group(lrs: GroupLrs) -> impl Iterator<Item = (&'static str, f64)> {
    PARAMETER_GROUPS.into_iter().zip(lrs)
}

/// How the rates change from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// They do not.
    Constant,
    /// Multiplied by `gamma` every `every` epochs.
    Step {
        /// Epochs between two falls, at least 1.
        every: u32,
        /// The factor of one fall.
        gamma: f64,
    },
    /// Half a cosine from 1 towards 0 over the epochs after the warm-up
    /// (Loshchilov, Hutter: "SGDR", 2017, without restarts).
    Cosine,
}

/// Base rates, their decay, and a linear warm-up in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Rates at factor 1.
    pub base: GroupLrs,
    /// The decay after the warm-up.
    pub decay: Decay,
    /// Epochs of linear warm-up; 0 for none.
    pub warmup_epochs: u32,
    /// Epochs of the whole run.
    pub epochs: u32,
}

impl Schedule {
    /// The rates of `epoch`, which counts from 1.
    pub fn lrs(&self, epoch: u32) -> GroupLrs {
        let factor = self.factor(epoch);
        self.base.map(|lr| lr * factor)
    }

    fn factor(&self, epoch: u32) -> f64 {
        if epoch <= self.warmup_epochs {
            return f64::from(epoch) / f64::from(self.warmup_epochs + 1);
        }
        let done = epoch - self.warmup_epochs - 1;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Step { every, gamma } => gamma.powf((done / every.max(1)).into()),
            Decay::Cosine => {
                let span = self.epochs.saturating_sub(self.warmup_epochs).max(1);
                let progress = f64::from(done.min(span)) / f64::from(span);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(decay: Decay, warmup_epochs: u32) -> Vec<f64> {
        let schedule = Schedule {
            base: [1.0; 6],
            decay,
            warmup_epochs,
            epochs: 6,
        };
        (1..=6).map(|epoch| schedule.lrs(epoch)[0]).collect()
    }

    #[test]
    fn each_decay_has_its_shape() {
        assert_eq!(factors(Decay::Constant, 0), [1.0; 6]);
        let step = Decay::Step {
            every: 2,
            gamma: 0.5,
        };
        assert_eq!(factors(step, 0), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
        let cosine = factors(Decay::Cosine, 0);
        assert_eq!(cosine[0], 1.0);
        assert!(
            (cosine[3] - 0.5).abs() < 1e-12,
            "half way is half: {cosine:?}"
        );
        assert!(cosine.windows(2).all(|pair| pair[1] < pair[0]));
        let warm = factors(Decay::Constant, 3);
        assert_eq!(warm, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }
}
