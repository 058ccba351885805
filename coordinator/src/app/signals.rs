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
            if signals.next_is_first().await {
                // It fails when the run is over, which is what the signal asks for.
                let _ = interrupts.send(());
                continue;
            }
            if let Some(children) = &children {
                children.kill();
            }
            std::process::exit(ExitCode::Interrupted.code().into());
        }
    });
    Ok(())
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

    /// Waits for the next signal; whether it is the first.
    async fn next_is_first(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        !std::mem::replace(&mut self.asked, true)
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn both_signals_count_and_only_the_first_is_the_first() {
        let mut signals = Signals::install().unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        assert!(signals.next_is_first().await);
        kill_process(getpid(), Signal::INT).unwrap();
        assert!(!signals.next_is_first().await);
    }
}
