//! The terminal of a run: a live progress bar, or plain lines where there is no terminal, a table
//! row per epoch, a summary at the end. The bar is drawn on stderr, lasting lines go to stdout. Where
//! logs are JSON, all lines go to the log. It shows the values that it gets, and computes only the
//! remaining time.

mod apply;
mod format;
mod screen;
mod skipped;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::fmt::MakeWriter;

use super::view::CompletedStep;
use coordinator_core::event::FinishedEpoch;
pub use format::{Summary, seconds_left};
use screen::{Bar, Lines, Out, Screen, Stage};

/// Without a terminal, time between two lines of progress.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The display of one run.
#[derive(Debug)]
pub struct Progress {
    bars: MultiProgress,
    lines: Lines,
    live: bool,
    /// Each line is read alone.
    sentences: bool,
    heading_shown: bool,
    last_heartbeat: Option<Instant>,
    /// Wall seconds of the last epoch's last generation, validation included.
    epoch_seconds: Option<f64>,
    /// Warnings about workers' machines that were printed.
    warnings: BTreeSet<String>,
}

impl Progress {
    /// Lasting lines to stdout, and a bar if stderr is a terminal.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn terminal() -> io::Result<Self> {
        let bars = MultiProgress::new();
        let live = !bars.is_hidden();
        let shared = live && io::stdout().is_terminal();
        Self::with(Out::Text(Box::new(io::stdout())), bars, live, shared)
    }

    /// All lines to the log, as events of level `info`, and no bar: every line has one format.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn log() -> io::Result<Self> {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self::with(Out::Log, bars, false, false)
    }

    fn with(out: Out, bars: MultiProgress, live: bool, shared: bool) -> io::Result<Self> {
        let sentences = matches!(out, Out::Log);
        let screen = Screen {
            bars: bars.clone(),
            bar: None,
            out,
            shared,
        };
        Ok(Self {
            bars,
            lines: Lines::start(screen)?,
            live,
            sentences,
            heading_shown: false,
            last_heartbeat: None,
            epoch_seconds: None,
            warnings: BTreeSet::new(),
        })
    }

    /// The writer for logs, so that they and the bar do not overwrite each other.
    #[must_use]
    pub fn log_writer(&self) -> LogWriter {
        LogWriter(self.bars.clone())
    }

    /// Shows a lasting line.
    pub fn say(&mut self, line: &str) {
        self.lines.say(line.to_owned());
    }

    /// The same, but once: workers of one machine, and those that rejoin, report the same, and each
    /// generation finds it again.
    fn warn(&mut self, line: String) {
        if !self.warnings.contains(&line) {
            self.say(&line);
            self.warnings.insert(line);
        }
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

    /// Shows the row of a finished epoch of at most `epochs`, under a heading the first time.
    pub fn epoch(&mut self, epoch: &FinishedEpoch, epochs: u32, best: bool) {
        self.clear();
        self.epoch_seconds = Some(epoch.seconds);
        if self.sentences {
            self.say(&format::sentence(epoch, epochs, best));
        } else {
            if !std::mem::replace(&mut self.heading_shown, true) {
                self.say(&format::heading());
            }
            self.say(&format::row(epoch, epochs, best));
        }
        // The row shows progress itself.
        self.last_heartbeat = Some(Instant::now());
    }

    /// Shows how the run ended.
    pub fn summary(&mut self, summary: &Summary) {
        self.clear();
        let text = format::summary(summary);
        // It stands apart from the table.
        self.say(if self.sentences {
            text.trim_start()
        } else {
            &text
        });
    }

    /// Removes the bar, for example before an error is printed.
    pub fn clear(&mut self) {
        self.lines.clear();
    }

    fn advance(&mut self, stage: Stage, label: &str, done: u64, total: u64, message: String) {
        let label = label.to_owned();
        if self.live {
            self.lines.bar(Bar {
                stage,
                label,
                done,
                total,
                message,
            });
        } else if self
            .last_heartbeat
            .is_none_or(|last| last.elapsed() >= HEARTBEAT)
        {
            self.last_heartbeat = Some(Instant::now());
            self.lines
                .progress(format!("{label}: {done}/{total} {message}"));
        }
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
