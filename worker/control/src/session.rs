//! How a worker responds to its coordinator's messages, and to a broken session.

use crate::inbox::Inbox;
use crate::protocol::{Order, StepGrant};

/// A message of the coordinator, after the session has begun.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// For the training thread.
    Order(Order),
    /// More steps may run.
    Grant(StepGrant),
    /// The run is over for this worker.
    Shutdown {
        /// A peer was lost: collectives will not complete, and the process exits with an error.
        abort: bool,
    },
}

/// What the session has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Abort the collectives in which the training thread may be blocked.
    AbortCollectives,
    /// Tell the coordinator that the worker wants to leave, and wait for its `Shutdown`.
    Drain,
    /// End the process at once.
    Exit,
}

/// One session. Dropped when it breaks; the inbox outlives it.
#[derive(Debug, Default)]
pub struct Session {
    over: bool,
    draining: bool,
}

impl Session {
    /// A session whose registration the coordinator accepted.
    pub fn open(inbox: &mut Inbox) -> Self {
        inbox.push(Order::Scan);
        Self::default()
    }

    /// Whether the coordinator has ended it, and may close the connection.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the worker has asked to leave.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Handles a message. An order is in the inbox before collectives are aborted, so that the
    /// thread finds it when its collective fails.
    pub fn receive(&mut self, message: Message, inbox: &mut Inbox) -> Effect {
        match message {
            Message::Order(order) => {
                let aborts = matches!(order, Order::AbortGeneration(_));
                inbox.push(order);
                if aborts {
                    return Effect::AbortCollectives;
                }
            }
            Message::Grant(grant) => inbox.grant(grant),
            Message::Shutdown { abort } => {
                self.over = true;
                inbox.push(Order::Shutdown);
                if abort {
                    return Effect::Exit;
                }
            }
        }
        Effect::None
    }

    /// The process was asked to end (SIGTERM). The second time, or when nothing is left to do for
    /// the run, it ends at once.
    pub fn asked_to_end(&mut self) -> Effect {
        if self.over || std::mem::replace(&mut self.draining, true) {
            return Effect::Exit;
        }
        Effect::Drain
    }

    /// The session broke. A worker that was about to end does; any other leaves its group, retains
    /// its state, and looks for the coordinator.
    pub fn broken(self, inbox: &mut Inbox) -> Effect {
        if self.draining || self.over {
            return Effect::Exit;
        }
        inbox.push(Order::AbortGeneration(0));
        Effect::AbortCollectives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_wants_to_leave_does_not_look_for_its_coordinator() {
        let mut inbox = Inbox::default();
        let session = Session::open(&mut inbox);
        assert_eq!(session.broken(&mut inbox), Effect::AbortCollectives);
        assert_eq!(inbox.pop(), Some(Order::Scan));
        assert_eq!(inbox.pop(), Some(Order::AbortGeneration(0)));
        let mut session = Session::open(&mut inbox);
        assert_eq!(session.asked_to_end(), Effect::Drain);
        assert_eq!(session.asked_to_end(), Effect::Exit);
        assert_eq!(session.broken(&mut inbox), Effect::Exit);
        let mut session = Session::open(&mut inbox);
        let shutdown = Message::Shutdown { abort: false };
        assert_eq!(session.receive(shutdown, &mut inbox), Effect::None);
        assert_eq!(session.asked_to_end(), Effect::Exit);
    }
}
