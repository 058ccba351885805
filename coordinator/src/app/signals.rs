//! SIGINT and SIGTERM: the first asks the run to end at the next step boundary, any further one
//! ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::app::exit::Failure;
use crate::cli::args::ExitCode;
use crate::launcher::Children;

/// Forwards the first signal as an interrupt. Any further one ends the process, and `children`
/// with it.
///
/// # Errors
/// The operating system refuses the handlers.
pub(super) fn watch_signals(
    interrupts: mpsc::UnboundedSender<()>,
    children: Option<Children>,
) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::internal)?;
    tokio::spawn(async move {
        loop {
            match signals.next().await {
                // It fails when the run is over, which is what the signal asks for.
                Stop::Graceful => drop(interrupts.send(())),
                Stop::Immediate => {
                    if let Some(children) = &children {
                        children.kill();
                    }
                    std::process::exit(ExitCode::Interrupted.code().into());
                }
            }
        }
    });
    Ok(())
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// End at the step boundary and keep the results.
    Graceful,
    /// End now.
    Immediate,
}

/// The signals of this process since [`Signals::install`].
#[derive(Debug)]
struct Signals {
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
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            asked: false,
        })
    }

    /// Waits for the next signal. Safe to cancel: no signal is lost.
    async fn next(&mut self) -> Stop {
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
