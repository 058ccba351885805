//! The thread that writes to the terminal, so that one that takes no more output, such as a pipe
//! to a pager, holds up nothing but itself.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Lines that may wait. Progress is dropped long before; more than these are lost.
const QUEUE: usize = 16_384;
/// Lines that may wait before progress is dropped.
const PROGRESS: usize = 16;
/// How long the last lines may take when the program ends.
const LAST: Duration = Duration::from_secs(5);

/// What the bar is about; a new stage gets a new bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Preparing,
    Training(u32),
}

/// What the bar shows.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) stage: Stage,
    pub(super) label: String,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) message: String,
}

/// Something to show.
#[derive(Debug)]
enum Line {
    Text(String),
    Bar(Bar),
    NoBar,
}

/// The way to the terminal. Dropping it waits a while for what is not written yet.
#[derive(Debug)]
pub(super) struct Lines {
    sender: Option<SyncSender<Line>>,
    waiting: Arc<AtomicUsize>,
    /// Ends with the thread.
    ended: Receiver<()>,
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub(super) fn start(screen: Screen) -> io::Result<Self> {
        let (sender, lines) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                let _end = end;
                screen.run(&lines, &written);
            })?;
        Ok(Self {
            sender: Some(sender),
            waiting,
            ended,
        })
    }

    /// Shows a lasting line.
    pub(super) fn say(&self, line: String) {
        self.send(Line::Text(line));
    }

    /// Shows a line of progress, unless the terminal is behind.
    pub(super) fn progress(&self, line: String) {
        self.send_progress(Line::Text(line));
    }

    /// Moves the bar, unless the terminal is behind.
    pub(super) fn bar(&self, bar: Bar) {
        self.send_progress(Line::Bar(bar));
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        self.send(Line::NoBar);
    }

    fn send_progress(&self, line: Line) {
        if self.waiting.load(Ordering::Relaxed) < PROGRESS {
            self.send(line);
        }
    }

    fn send(&self, line: Line) {
        // Before the thread can take it, so that the count never falls below 0.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self
            .sender
            .as_ref()
            .is_none_or(|to| to.try_send(line).is_err())
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.sender = None;
        // It fails when the thread has ended, which is what is awaited.
        let _ = self.ended.recv_timeout(LAST);
    }
}

/// Where lines go.
pub(super) enum Out {
    Text(Box<dyn Write + Send>),
    /// Events of the log, in its format.
    Log,
}

/// The terminal, or what stands in for it.
pub(super) struct Screen {
    pub(super) bars: MultiProgress,
    pub(super) bar: Option<(Stage, ProgressBar)>,
    pub(super) out: Out,
    /// Lines go where the bar is drawn.
    pub(super) shared: bool,
}

impl Screen {
    fn run(mut self, lines: &Receiver<Line>, waiting: &AtomicUsize) {
        for line in lines {
            match line {
                Line::Text(line) => self.say(&line),
                Line::Bar(bar) => self.draw(bar),
                Line::NoBar => self.clear(),
            }
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.clear();
    }

    fn say(&mut self, line: &str) {
        let out = match &mut self.out {
            Out::Text(out) => out,
            Out::Log => return tracing::info!("{line}"),
        };
        // A reader that has gone away, as `head` does, must not end a run.
        let mut write = || drop(writeln!(out, "{line}").and_then(|()| out.flush()));
        match self.shared {
            true => self.bars.suspend(write),
            // The bar's lock would keep logs waiting.
            false => write(),
        }
    }

    fn draw(&mut self, of: Bar) {
        let bar = match &self.bar {
            Some((stage, bar)) if *stage == of.stage => bar.clone(),
            _ => self.begin(of.stage, of.label),
        };
        bar.set_length(of.total);
        bar.set_position(of.done);
        bar.set_message(of.message);
    }

    fn begin(&mut self, stage: Stage, label: String) -> ProgressBar {
        self.clear();
        let style = ProgressStyle::with_template("{prefix} [{bar:8}] {pos}/{len} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = self.bars.add(ProgressBar::new(0).with_style(style));
        bar.set_prefix(label);
        self.bar = Some((stage, bar.clone()));
        bar
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}
