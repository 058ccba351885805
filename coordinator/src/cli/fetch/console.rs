//! What people see of a fetch: a bar with rate and ETA on a terminal, plain lines when piped.
//!
//! Owns every line that a fetch prints, all on standard error. Must not hold state that anything
//! else reads.

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a piped fetch says where it is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Where lines and bars go, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Console {
    Silent,
    Plain,
    Terminal,
}

impl Console {
    /// The console for this process's standard error.
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Silent
        } else if std::io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::Plain
        }
    }

    /// Prints one line.
    pub(super) fn say(self, line: &str) {
        if self != Self::Silent {
            eprintln!("{line}");
        }
    }

    /// A meter of bytes that starts at `done`; `total` is unknown where the server does not say.
    pub(super) fn bytes(self, label: &str, done: u64, total: Option<u64>) -> Meter {
        let template = match total {
            Some(_) => {
                "{msg}  [{bar:32}]  {decimal_bytes} of {decimal_total_bytes}  \
                 {decimal_bytes_per_sec}  {eta} left"
            }
            None => "{msg}  {spinner}  {decimal_bytes}  {decimal_bytes_per_sec}",
        };
        self.meter(template, label, done, total, Unit::Bytes)
    }

    /// A meter of files, the number of which is not known.
    pub(super) fn files(self, label: &str) -> Meter {
        self.meter(
            "{msg}  {spinner}  {human_pos} files",
            label,
            0,
            None,
            Unit::Files,
        )
    }

    fn meter(
        self,
        template: &str,
        label: &str,
        done: u64,
        total: Option<u64>,
        unit: Unit,
    ) -> Meter {
        let target = match self {
            Self::Terminal => ProgressDrawTarget::stderr(),
            Self::Silent | Self::Plain => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(total, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_message(label.to_owned());
        // Bytes of an earlier run say nothing about today's rate.
        bar.set_position(done);
        bar.reset_eta();
        Meter {
            console: self,
            bar,
            unit,
            spoken: Instant::now(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    Files,
}

/// A running count. Dropping it clears the bar.
pub(super) struct Meter {
    console: Console,
    bar: ProgressBar,
    unit: Unit,
    spoken: Instant,
}

impl Meter {
    /// Counts `n` more.
    pub(super) fn advance(&mut self, n: u64) {
        self.bar.inc(n);
        if self.console == Console::Plain && self.spoken.elapsed() >= PLAIN_INTERVAL {
            self.spoken = Instant::now();
            self.console.say(&self.line());
        }
    }

    fn line(&self) -> String {
        let (label, done) = (self.bar.message(), self.bar.position());
        match (self.unit, self.bar.length()) {
            (Unit::Bytes, Some(total)) if total > 0 => format!(
                "{label}: {} of {} ({} %), {} left",
                DecimalBytes(done),
                DecimalBytes(total),
                100 * done / total,
                HumanDuration(self.bar.eta())
            ),
            (Unit::Bytes, _) => format!("{label}: {}", DecimalBytes(done)),
            (Unit::Files, _) => format!("{label}: {done} files"),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
