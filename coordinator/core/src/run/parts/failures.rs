//! What went wrong, as far as it decides whether the run may go on.

use crate::event::Loss;

/// Process groups that break in a row, with no member lost and no step made, before the run
/// gives up.
const MAX_GROUP_FAILURES: u32 = 5;

/// The failures since the last step.
#[derive(Debug, Default)]
pub(in crate::run) struct Failures {
    /// Groups that broke in a row although their members are alive.
    groups: u32,
    last: Option<Loss>,
}

impl Failures {
    /// A worker was lost.
    pub(in crate::run) fn lose(&mut self, loss: Loss) {
        self.last = Some(loss);
    }

    /// A group broke although its members are alive. Returns how many did in a row, if that is too
    /// many.
    pub(in crate::run) fn break_group(&mut self, loss: Loss) -> Option<u32> {
        self.last = Some(loss);
        self.groups += 1;
        (self.groups > MAX_GROUP_FAILURES).then_some(self.groups)
    }

    /// Another group may fare better: a step was made, or a member that may have been the cause
    /// is gone.
    pub(in crate::run) fn forgive_groups(&mut self) {
        self.groups = 0;
    }

    /// The last loss of a worker or group.
    pub(in crate::run) fn last(&self) -> Option<&Loss> {
        self.last.as_ref()
    }
}
