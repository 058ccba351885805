//! The two bounded channels between a session and the driver.
//!
//! Into the driver, the **mailbox**: when it is full, a session is no longer read, and HTTP/2
//! flow control holds the worker back. Sessions get their turns in the order in which they ask,
//! so one that floods slows down itself.
//!
//! Out of the driver, an **outbox** for each worker: the driver never waits for a worker. One
//! whose outbox is full does not read, and is evicted.

use std::sync::Arc;

use coordinator_core::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::input::DriverInput;

/// Inputs that may wait.
const MAILBOX: usize = 1_024;
/// Bytes of the messages that may wait: a few of the largest, the list of all images.
const MAILBOX_BYTES: usize = 256 << 20;
/// Commands that may wait for a worker. Steps are granted half a second ahead, so a worker that
/// reads has a few dozen at most.
pub const OUTBOX: usize = 1_024;

/// The mailbox and the driver's end of it.
#[must_use]
pub fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = mpsc::channel(MAILBOX);
    let bytes = Arc::new(Semaphore::new(MAILBOX_BYTES));
    (Mailbox { sender, bytes }, Inbox(receiver))
}

/// The way to the driver; cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailbox {
    sender: mpsc::Sender<(DriverInput, OwnedSemaphorePermit)>,
    bytes: Arc<Semaphore>,
}

/// The run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run is over")]
pub struct RunOver;

impl Mailbox {
    /// Sends `input`, of so many bytes in memory, once there is room.
    ///
    /// # Errors
    /// The run is over.
    pub async fn send(&self, input: DriverInput, bytes: usize) -> Result<(), RunOver> {
        let bytes = bytes.min(MAILBOX_BYTES) as u32;
        // The semaphore is never closed.
        let credit = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        let credit = credit.map_err(|_| RunOver)?;
        self.sender.send((input, credit)).await.map_err(|_| RunOver)
    }
}

/// What was sent to the driver.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<(DriverInput, OwnedSemaphorePermit)>);

impl Inbox {
    /// The next input. Never ends while a [`Mailbox`] is left.
    pub(super) async fn recv(&mut self) -> Option<DriverInput> {
        self.0.recv().await.map(|(input, _)| input)
    }

    /// The next input, if one waits.
    pub fn try_recv(&mut self) -> Option<DriverInput> {
        self.0.try_recv().ok().map(|(input, _)| input)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells everything that sends from now on that the run is over.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// A command to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The command.
    pub command: Command,
    /// The image cache that local workers share, once there is one.
    pub cache_file: Option<String>,
}

/// The way to a worker. Dropping it ends the session, once what was sent is delivered.
#[derive(Debug)]
pub struct Outbox {
    commands: mpsc::Sender<Outgoing>,
    evicted: oneshot::Sender<NotReading>,
}

/// The worker's end of an [`Outbox`].
#[derive(Debug)]
pub struct Commands {
    /// What to send to the worker.
    pub commands: mpsc::Receiver<Outgoing>,
    /// Ends with the outbox; with a value, the session is to be cut off at once.
    pub evicted: oneshot::Receiver<NotReading>,
}

/// The worker does not read its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this worker does not read its messages: {OUTBOX} wait")]
pub struct NotReading;

impl Outbox {
    /// An outbox and its other end.
    #[must_use]
    pub fn new() -> (Self, Commands) {
        let (sender, commands) = mpsc::channel(OUTBOX);
        let (evict, evicted) = oneshot::channel();
        let outbox = Self {
            commands: sender,
            evicted: evict,
        };
        (outbox, Commands { commands, evicted })
    }

    /// Sends a command; a session that is broken reports that itself.
    ///
    /// # Errors
    /// The worker does not read. It must be evicted, for it misses a command.
    pub(super) fn send(&self, outgoing: Outgoing) -> Result<(), NotReading> {
        match self.commands.try_send(outgoing) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotReading),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Cuts the session off.
    pub(super) fn evict(self) {
        // It fails when the session is gone.
        let _ = self.evicted.send(NotReading);
    }
}

#[cfg(test)]
mod tests {
    use coordinator_core::{Event, WorkerId};

    use super::*;

    fn grant(granted: u32) -> Outgoing {
        Outgoing {
            command: Command::Grant {
                generation: 1,
                epoch: 1,
                granted,
            },
            cache_file: None,
        }
    }

    /// Until all other tasks wait: the clock stands still before.
    async fn settle() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_mailbox_holds_its_senders_back_in_turn() {
        let (mailbox, mut inbox) = mailbox();
        let input = |worker| {
            DriverInput::Event(Event::Lost {
                worker: WorkerId(worker),
            })
        };
        // One sender floods; another comes later.
        let flood = mailbox.clone();
        let flood = tokio::spawn(async move { while flood.send(input(0), 1).await.is_ok() {} });
        settle().await;
        assert_eq!(inbox.len(), MAILBOX);
        let honest = mailbox.clone();
        let honest = tokio::spawn(async move { honest.send(input(1), 1).await });
        settle().await;
        assert!(!honest.is_finished());
        let mut before = 0;
        while let Some(DriverInput::Event(Event::Lost { worker })) = inbox.recv().await
            && worker == WorkerId(0)
        {
            before += 1;
            settle().await;
        }
        assert!(before <= MAILBOX + 1, "{before} went first");
        inbox.close();
        while inbox.try_recv().is_some() {}
        assert_eq!(honest.await.unwrap(), Ok(()));
        flood.await.unwrap();
        assert_eq!(mailbox.send(input(0), 1).await, Err(RunOver));
    }

    #[tokio::test(start_paused = true)]
    async fn large_messages_wait_for_the_bytes_of_others() {
        let (mailbox, mut inbox) = mailbox();
        let input = || {
            DriverInput::Event(Event::Lost {
                worker: WorkerId(0),
            })
        };
        for _ in 0..4 {
            mailbox.send(input(), MAILBOX_BYTES / 4).await.unwrap();
        }
        let fifth = mailbox.clone();
        let fifth = tokio::spawn(async move { fifth.send(input(), usize::MAX).await });
        settle().await;
        for _ in 0..4 {
            assert!(!fifth.is_finished());
            assert!(inbox.recv().await.is_some());
            settle().await;
        }
        assert_eq!(fifth.await.unwrap(), Ok(()));
    }

    #[test]
    fn an_outbox_that_is_not_read_is_full_and_a_closed_one_is_not() {
        let (outbox, mut commands) = Outbox::new();
        for granted in 0..OUTBOX as u32 {
            outbox.send(grant(granted)).unwrap();
        }
        assert_eq!(outbox.send(grant(0)), Err(NotReading));
        assert_eq!(commands.commands.try_recv(), Ok(grant(0)));
        outbox.send(grant(1)).unwrap();
        outbox.evict();
        assert_eq!(commands.evicted.try_recv(), Ok(NotReading));

        let (outbox, commands) = Outbox::new();
        drop(commands);
        assert_eq!(outbox.send(grant(0)), Ok(()));
    }
}
