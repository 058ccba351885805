//! The validated epochs, and what early stopping makes of them.

use crate::early_stopping::{Best, EarlyStopping, Rule, Standing};
use crate::event::StopReason;

/// The validated epochs in order. Early stopping is a function of their losses.
#[derive(Debug)]
pub(in crate::run) struct History {
    rule: Rule,
    /// The most epochs.
    limit: u32,
    validation_losses: Vec<f64>,
    stopping: EarlyStopping,
}

impl History {
    /// With the validation losses of the epochs that a former coordinator saw.
    pub(in crate::run) fn new(rule: Rule, limit: u32, validation_losses: &[f64]) -> Self {
        let mut new = Self {
            rule,
            limit,
            validation_losses: Vec::new(),
            stopping: EarlyStopping::new(rule),
        };
        for loss in validation_losses {
            new.push(*loss);
        }
        new
    }

    /// Adds the next epoch; whether it is the best so far.
    pub(in crate::run) fn push(&mut self, validation_loss: f64) -> bool {
        self.validation_losses.push(validation_loss);
        let epoch = self.epochs();
        self.stopping.observe(epoch, validation_loss)
    }

    /// Forgets all epochs but the first ones.
    pub(in crate::run) fn truncate(&mut self, epochs: u32) {
        self.validation_losses.truncate(epochs as usize);
        *self = Self::new(self.rule, self.limit, &self.validation_losses);
    }

    /// How many epochs are validated.
    pub(in crate::run) fn epochs(&self) -> u32 {
        self.validation_losses.len() as u32
    }

    /// The best epoch, once there is one.
    pub(in crate::run) fn best(&self) -> Option<Best> {
        self.stopping.best()
    }

    /// Where early stopping stands.
    pub(in crate::run) fn standing(&self) -> Standing {
        self.stopping.standing()
    }

    /// Why nothing is left to train, if so.
    pub(in crate::run) fn end(&self) -> Option<StopReason> {
        let last = self.validation_losses.last()?;
        if !last.is_finite() {
            Some(StopReason::NonFiniteLoss)
        } else if self.stopping.is_out_of_patience() {
            Some(StopReason::Patience)
        } else {
            (self.epochs() >= self.limit).then_some(StopReason::MaxEpochs)
        }
    }
}
