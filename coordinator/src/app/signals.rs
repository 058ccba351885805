//! SIGINT and SIGTERM as a sequence of wishes: the first asks for an orderly end, any further
//! one for an immediate end. It only reports; the run's owner acts.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// End at the step boundary and keep the results.
    Graceful,
    /// End now.
    Immediate,
}

/// The signals of this process from the moment of [`Signals::install`] on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    asked: bool,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM, which no longer end the process by themselves.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses the handlers.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            asked: false,
        })
    }

    /// Waits for the next signal. Safe to cancel: no signal is lost.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        if std::mem::replace(&mut self.asked, true) {
            Stop::Immediate
        } else {
            Stop::Graceful
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_is_graceful_and_the_second_immediate() {
        let mut signals = Signals::install().unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.next().await, Stop::Graceful);
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(signals.next().await, Stop::Immediate);
    }
}
