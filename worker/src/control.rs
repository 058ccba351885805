//! What passes between the agent and the training thread: orders and step grants one way,
//! messages and uploads the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use proto::v1;
use tokio::sync::mpsc;

/// What the training thread is told to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Say what there is: data, device, state. The first order of each session.
    Scan,
    /// Decode these samples.
    Prepare(v1::Prepare),
    /// Form this group.
    Assign(v1::Assignment),
    /// Train this epoch.
    Plan(v1::EpochPlan),
    /// How the epoch was judged.
    EpochResult(v1::EpochResult),
    /// Leave this group.
    AbortGeneration(v1::AbortGeneration),
    /// Hand something over for the run directory.
    SaveState(v1::SaveState),
    /// Show predictions, then be done.
    Finish(v1::Finish),
    /// End.
    Shutdown(v1::Shutdown),
}

/// Whether the next step may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It may.
    Go,
    /// It will not run: another order is waiting.
    Stop,
    /// First a checkpoint is wanted.
    Checkpoint,
}

#[derive(Debug, Default)]
struct State {
    orders: VecDeque<Order>,
    /// Generation and epoch of the plan that the grant is for.
    plan: (u64, u32),
    granted: u32,
}

/// The training thread's inbox; the agent puts in, the thread takes out.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<(Mutex<State>, Condvar)>);

impl Inbox {
    /// Adds an order. A plan carries its first grant.
    pub fn push(&self, order: Order) {
        let mut state = self.lock();
        if let Order::Plan(plan) = &order {
            state.plan = (plan.generation, plan.epoch);
            state.granted = plan.granted;
        }
        state.orders.push_back(order);
        self.0.1.notify_all();
    }

    /// Whether an order waits that ends whatever is being done for a group.
    pub fn is_called_off(&self) -> bool {
        self.lock().orders.iter().any(|order| {
            matches!(
                order,
                Order::AbortGeneration(_) | Order::Scan | Order::Shutdown(_)
            )
        })
    }

    /// Raises the grant of the running epoch; one of another plan is late and ignored.
    pub fn grant(&self, grant: &v1::StepGrant) {
        let mut state = self.lock();
        if (grant.generation, grant.epoch) == state.plan {
            state.granted = state.granted.max(grant.granted);
            self.0.1.notify_all();
        }
    }

    /// Waits for the next order.
    pub fn next(&self) -> Order {
        let mut state = self.lock();
        loop {
            if let Some(order) = state.orders.pop_front() {
                return order;
            }
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a rank that completed `completed` steps of the running epoch may go on; `None`
    /// when nobody has said yet.
    pub fn try_grant(&self, completed: u32) -> Option<Grant> {
        let mut state = self.lock();
        if let Some(Order::SaveState(v1::SaveState {
            what: Some(v1::save_state::What::Checkpoint(_)),
        })) = state.orders.front()
        {
            state.orders.pop_front();
            return Some(Grant::Checkpoint);
        }
        if !state.orders.is_empty() {
            return Some(Grant::Stop);
        }
        (completed < state.granted).then_some(Grant::Go)
    }

    /// Waits until [`try_grant`](Self::try_grant) has an answer.
    pub fn wait_for_grant(&self, completed: u32) {
        let undecided = |state: &mut State| state.orders.is_empty() && completed >= state.granted;
        drop(
            self.0
                .1
                .wait_while(self.lock(), undecided)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// A poisoned lock means that the other side panicked; the state is plain values and
    /// stays usable for the orderly end.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the training thread hands to the agent.
#[derive(Debug)]
pub enum Outgoing {
    /// For the session.
    Message(v1::worker_message::Message),
    /// A blob; it travels while training goes on.
    Upload {
        /// What it is.
        label: v1::BlobHeader,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A blob of the run directory is needed; the thread waits for it.
    Fetch {
        /// Which.
        request: v1::DownloadRequest,
        /// All of it, or why not.
        reply: std::sync::mpsc::Sender<Result<Vec<u8>, String>>,
    },
    /// Images are needed that the coordinator has; the thread waits for them.
    Images {
        /// Which, and where they go.
        wanted: Vec<Wanted>,
        /// Whether all are there.
        reply: std::sync::mpsc::Sender<Result<(), FetchError>>,
    },
    /// The store of a group being formed, for the agent to interrupt when a peer dies.
    Store(c10d::Store),
    /// A live process group, likewise to abort.
    Group(c10d::ProcessGroup),
}

/// An image that is to be fetched.
#[derive(Debug)]
pub struct Wanted {
    /// Its place in the coordinator's list.
    pub sample: u32,
    /// Where it is put.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// Why images were not fetched. Those before are there.
#[derive(Debug)]
pub enum FetchError {
    /// The session broke; another attempt may succeed.
    Broken(String),
    /// The coordinator does not give them, or there is no room.
    Refused(String),
}

/// The way out of the training thread.
#[derive(Debug, Clone)]
pub struct Link(mpsc::UnboundedSender<Outgoing>);

impl Link {
    /// A link to the agent that reads `outgoing`.
    pub fn new(outgoing: mpsc::UnboundedSender<Outgoing>) -> Self {
        Self(outgoing)
    }

    /// Hands over. When the agent is gone, so is the session, and nobody is left to tell.
    pub fn send(&self, outgoing: Outgoing) {
        let _ = self.0.send(outgoing);
    }

    /// Hands over a message.
    pub fn message(&self, message: v1::worker_message::Message) {
        self.send(Outgoing::Message(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_holds_for_its_epoch_and_an_order_ends_the_wait() {
        let inbox = Inbox::default();
        inbox.push(Order::Plan(v1::EpochPlan {
            epoch: 2,
            granted: 1,
            ..Default::default()
        }));
        assert!(matches!(inbox.next(), Order::Plan(_)));
        assert_eq!(inbox.try_grant(0), Some(Grant::Go));
        let late = v1::StepGrant {
            epoch: 1,
            granted: 9,
            ..Default::default()
        };
        inbox.grant(&late);
        assert_eq!(inbox.try_grant(1), None);
        inbox.push(Order::SaveState(v1::SaveState {
            what: Some(v1::save_state::What::Checkpoint(true)),
        }));
        assert_eq!(inbox.try_grant(1), Some(Grant::Checkpoint));
        assert_eq!(inbox.try_grant(1), None);
        let waiting = inbox.clone();
        let thread = std::thread::spawn(move || {
            waiting.wait_for_grant(1);
            waiting.try_grant(1)
        });
        inbox.push(Order::Finish(v1::Finish::default()));
        assert_eq!(thread.join().unwrap(), Some(Grant::Stop));
    }
}
