//! The terminal of a run: a live progress bar, or plain lines where there is no terminal, a table
//! row per epoch, a summary at the end. The bar is drawn on stderr, lasting lines go to stdout. It
//! shows the values that it gets, and computes only the remaining time.

mod apply;
mod format;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::view::CompletedStep;
use coordinator_core::event::FinishedEpoch;
pub use format::{Summary, seconds_left};

/// Without a terminal, time between two lines of progress.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The display of one run.
pub struct Progress {
    screen: MultiProgress,
    bar: Option<(Stage, ProgressBar)>,
    out: Box<dyn Write + Send>,
    live: bool,
    heading_shown: bool,
    last_heartbeat: Option<Instant>,
    /// Wall seconds of the last whole epoch, validation included.
    epoch_seconds: Option<f64>,
    /// Warnings about workers' machines that were printed.
    warnings: BTreeSet<String>,
}

/// What the bar is about; a new stage gets a new bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preparing,
    Training(u32),
    Validating(u32),
}

impl Progress {
    /// Lasting lines to stdout, and a bar if stderr is a terminal.
    #[must_use]
    pub fn terminal() -> Self {
        let screen = MultiProgress::new();
        let live = !screen.is_hidden();
        Self::with(Box::new(io::stdout()), screen, live)
    }

    fn with(out: Box<dyn Write + Send>, screen: MultiProgress, live: bool) -> Self {
        Self {
            screen,
            bar: None,
            out,
            live,
            heading_shown: false,
            last_heartbeat: None,
            epoch_seconds: None,
            warnings: BTreeSet::new(),
        }
    }

    /// The writer for logs, so that they and the bar do not overwrite each other.
    #[must_use]
    pub fn log_writer(&self) -> LogWriter {
        LogWriter(self.screen.clone())
    }

    /// Shows a lasting line.
    pub fn say(&mut self, line: &str) {
        let out = &mut self.out;
        self.screen.suspend(|| {
            // A reader that has gone away, as `head` does, must not end a run.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        });
    }

    /// Shows how many images are decoded.
    pub fn preparing(&mut self, done: u64, total: u64) {
        let message = "images decoded".to_owned();
        self.advance(Stage::Preparing, "preparing", done, total, message);
    }

    /// Shows where training stands.
    pub fn step(&mut self, view: &CompletedStep) {
        let label = format!("epoch {}/{}", view.epoch, view.epochs);
        let message = format::step_message(view, self.epoch_seconds);
        self.advance(
            Stage::Training(view.epoch),
            &label,
            view.step,
            view.steps,
            message,
        );
    }

    /// Shows how many images of the validation set are evaluated after an epoch.
    pub fn validating(&mut self, epoch: u32, done: u64, total: u64) {
        let message = "images validated".to_owned();
        self.advance(Stage::Validating(epoch), "validating", done, total, message);
    }

    /// Shows the row of a finished epoch of at most `epochs`, under a heading the first time.
    pub fn epoch(&mut self, epoch: &FinishedEpoch, epochs: u32, best: bool) {
        self.clear();
        self.epoch_seconds = Some(epoch.seconds);
        if !std::mem::replace(&mut self.heading_shown, true) {
            self.say(&format::heading());
        }
        self.say(&format::row(epoch, epochs, best));
        // The row shows progress itself.
        self.last_heartbeat = Some(Instant::now());
    }

    /// Shows how the run ended.
    pub fn summary(&mut self, summary: &Summary) {
        self.clear();
        self.say(&format::summary(summary));
    }

    /// Removes the bar, for example before an error is printed.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }

    fn advance(&mut self, stage: Stage, label: &str, done: u64, total: u64, message: String) {
        if self.live {
            let bar = self.bar_of(stage, label);
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message);
        } else if self
            .last_heartbeat
            .is_none_or(|last| last.elapsed() >= HEARTBEAT)
        {
            self.last_heartbeat = Some(Instant::now());
            self.say(&format!("{label}: {done}/{total} {message}"));
        }
    }

    fn bar_of(&mut self, stage: Stage, label: &str) -> ProgressBar {
        if let Some((current, bar)) = &self.bar
            && *current == stage
        {
            return bar.clone();
        }
        self.clear();
        let style = ProgressStyle::with_template("{prefix} [{bar:8}] {pos}/{len} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = self.screen.add(ProgressBar::new(0).with_style(style));
        bar.set_prefix(label.to_owned());
        self.bar = Some((stage, bar.clone()));
        bar
    }
}

/// Writes logs to stderr with the bar out of the way.
#[derive(Debug, Clone)]
pub struct LogWriter(MultiProgress);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests;
