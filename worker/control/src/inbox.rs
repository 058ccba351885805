//! The queue of the training thread: orders, and the step grant of the running epoch.

use std::collections::VecDeque;

use crate::protocol::{Order, SaveState, StepGrant};

/// Whether the next step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It may run.
    Go,
    /// It will not run: another order is queued.
    Stop,
    /// A checkpoint comes first.
    Checkpoint,
    /// The coordinator has not granted it yet.
    Wait,
}

/// The session adds orders, and the training thread takes them.
#[derive(Debug, Default)]
pub struct Inbox {
    orders: VecDeque<Order>,
    /// Generation and epoch of the plan that the grant is for.
    plan: (u64, u32),
    granted: u32,
}

impl Inbox {
    /// Adds an order. A plan carries its first grant.
    pub fn push(&mut self, order: Order) {
        if let Order::Plan(plan) = &order {
            self.plan = (plan.generation, plan.epoch);
            self.granted = plan.granted;
        }
        self.orders.push_back(order);
    }

    /// Raises the grant of the running epoch; one of another plan came late and is ignored.
    pub fn grant(&mut self, grant: StepGrant) {
        if (grant.generation, grant.epoch) == self.plan {
            self.granted = self.granted.max(grant.granted);
        }
    }

    /// The next order.
    pub fn pop(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The queued orders.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter()
    }

    /// Whether a queued order ends the thread's work in its group. Until the thread takes that
    /// order, a store or a group that it opens has to be aborted.
    pub fn is_cancelled(&self) -> bool {
        self.orders.iter().any(|order| {
            matches!(
                order,
                Order::AbortGeneration(_) | Order::Scan | Order::Shutdown
            )
        })
    }

    /// Whether a rank that completed `completed` steps of the running epoch may make another.
    /// Removes the order of a checkpoint from the queue.
    pub fn try_grant(&mut self, completed: u32) -> Grant {
        match self.orders.front() {
            Some(Order::SaveState(SaveState::Checkpoint)) => {
                self.orders.pop_front();
                Grant::Checkpoint
            }
            Some(_) => Grant::Stop,
            None if completed < self.granted => Grant::Go,
            None => Grant::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::EpochPlan;

    #[test]
    fn a_grant_holds_for_its_plan_and_an_order_stops_the_epoch() {
        let mut inbox = Inbox::default();
        inbox.push(Order::Plan(Arc::new(EpochPlan {
            generation: 1,
            epoch: 2,
            completed: 0,
            samples: Vec::new(),
            local_counts: Vec::new(),
            global_counts: Vec::new(),
            lrs: [0.0; 6],
            validation: Vec::new(),
            granted: 1,
        })));
        assert!(matches!(inbox.pop(), Some(Order::Plan(_))));
        assert_eq!(inbox.try_grant(0), Grant::Go);
        let grant = |epoch| StepGrant {
            generation: 1,
            epoch,
            granted: 2,
        };
        inbox.grant(grant(1));
        assert_eq!(inbox.try_grant(1), Grant::Wait);
        inbox.grant(grant(2));
        assert_eq!(inbox.try_grant(1), Grant::Go);
        inbox.push(Order::SaveState(SaveState::Checkpoint));
        assert_eq!(inbox.try_grant(1), Grant::Checkpoint);
        assert_eq!(inbox.try_grant(1), Grant::Go);
        inbox.push(Order::SaveState(SaveState::Best(1)));
        assert_eq!(inbox.try_grant(1), Grant::Stop);
        assert!(!inbox.is_cancelled());
        inbox.push(Order::AbortGeneration(1));
        assert!(inbox.is_cancelled());
    }
}
