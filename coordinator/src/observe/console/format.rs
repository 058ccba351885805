//! The texts of the display, as pure functions of plain values.

use std::fmt::Write;
use std::path::PathBuf;

use crate::observe::view::CompletedStep;
use crate::store::{BAD_FILES, BEST_WEIGHTS, CONFIG, CURVES, LOGS, METRICS, PREDICTIONS, SPLIT};
use coordinator_core::event::{FinishedEpoch, StopReason};
use coordinator_core::words::count;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why it stopped.
    pub reason: StopReason,
    /// Epochs done.
    pub epochs: u32,
    /// Epochs without improvement that stop a run.
    pub patience: u32,
    /// The best epoch, if one was finished.
    pub best: Option<FinishedEpoch>,
    /// Wall seconds of the whole run.
    pub seconds: f64,
    /// The run directory.
    pub run_dir: PathBuf,
    /// Names of the files in it, without the folder.
    pub files: Vec<String>,
}

/// Seconds left of the epoch's training, and of the run if nothing stops it early, which the
/// last epoch tells best.
pub fn seconds_left(view: &CompletedStep, last_epoch_seconds: Option<f64>) -> Option<(f64, f64)> {
    if view.made == 0 || view.steps == 0 {
        return None;
    }
    let per_step = view.elapsed / view.made as f64;
    let left = per_step * view.steps.saturating_sub(view.step) as f64;
    let epoch = last_epoch_seconds.unwrap_or(per_step * view.steps as f64);
    let run = left + epoch * f64::from(view.epochs.saturating_sub(view.epoch));
    Some((left, run))
}

/// `12.5 images/s  loss 0.432  left 0:40  run ≤13:40`, short enough for 80 columns with the bar
/// before it. The run's time is an upper bound, as it may stop early.
pub(super) fn step_message(view: &CompletedStep, last_epoch_seconds: Option<f64>) -> String {
    let mut text = format!(
        "{:.1} images/s  loss {:.3}",
        view.images_per_second, view.loss
    );
    if let Some((left, run)) = seconds_left(view, last_epoch_seconds) {
        // Writing to a string cannot fail.
        let _ = write!(text, "  left {}  run ≤{}", clock(left), clock(run));
    }
    text
}

/// The warning that a machine has more threads than processors.
pub(super) fn too_many_threads(host: &str, workers: u32, threads: u32, processors: u32) -> String {
    let processors = count(processors as usize, "processor");
    match threads > workers {
        true => format!(
            "on {host}: the workers compute with {threads} threads on {processors}: set a smaller \
             --threads-per-worker, or start fewer workers there (2 workers with 2 threads each on 2 \
             processors train 5 to 8 times slower than with 1)"
        ),
        false => format!(
            "on {host}: {workers} workers share {processors}: fewer workers would train faster"
        ),
    }
}

pub(super) fn heading() -> String {
    format!(
        "{:>7}  {:>10}  {:>10}  {:>8}  {:>9}  {:>12}",
        "epoch", "train loss", "val loss", "accuracy", "images/s", "time"
    )
}

pub(super) fn row(row: &FinishedEpoch, epochs: u32, best: bool) -> String {
    format!(
        "{:>7}  {:>10.4}  {:>10.4}  {:>7.2}%  {:>9.1}  {:>12}{}",
        format!("{}/{epochs}", row.epoch),
        row.train_loss,
        row.validation_loss,
        100.0 * row.validation_accuracy,
        row.images_per_second,
        time(row.seconds),
        if best { "  best" } else { "" }
    )
}

/// The row for a log, where no heading stands above it.
pub(super) fn sentence(row: &FinishedEpoch, epochs: u32, best: bool) -> String {
    format!(
        "epoch {}/{epochs}: training loss {:.4}, validation loss {:.4}, accuracy {:.2}%, \
         {:.1} images/s, {}{}",
        row.epoch,
        row.train_loss,
        row.validation_loss,
        100.0 * row.validation_accuracy,
        row.images_per_second,
        time(row.seconds),
        if best { ", the best so far" } else { "" }
    )
}

pub(super) fn summary(summary: &Summary) -> String {
    let mut text = format!("\n{}\n", stopped(summary));
    match &summary.best {
        Some(best) => text.push_str(&format!(
            "  best epoch       {}\n  validation loss  {:.4}\n  accuracy         {:.2}%\n",
            best.epoch,
            best.validation_loss,
            100.0 * best.validation_accuracy
        )),
        None => text.push_str("  no epoch was finished: there are no weights\n"),
    }
    text.push_str(&format!("  time             {}\n", time(summary.seconds)));
    text.push_str(&format!("  results          {}", summary.run_dir.display()));
    for (name, meaning) in MEANINGS {
        if summary.files.iter().any(|file| file == name) {
            text.push_str(&format!("\n    {name:<16} {meaning}"));
        }
    }
    text
}

const MEANINGS: [(&str, &str); 8] = [
    (
        BEST_WEIGHTS,
        "weights of the best epoch, under torchvision's names",
    ),
    (METRICS, "losses, accuracy and times, one line per epoch"),
    (CURVES, "losses and accuracy over the epochs"),
    (
        PREDICTIONS,
        "validation images with predicted and true classes",
    ),
    (SPLIT, "the images of the training and the validation set"),
    (BAD_FILES, "the files that were skipped, with the reasons"),
    (CONFIG, "the settings, for --config"),
    (LOGS, "one log per worker"),
];

fn stopped(summary: &Summary) -> String {
    let done = count(summary.epochs as usize, "epoch");
    match summary.reason {
        StopReason::Patience => format!(
            "stopped after {done}: the validation loss did not improve for {}",
            count(summary.patience as usize, "epoch")
        ),
        StopReason::MaxEpochs => format!("finished all of {done}"),
        StopReason::NonFiniteLoss => format!(
            "stopped after {done}: the loss became infinite or not a number; \
             a lower --layer-lr may help"
        ),
        StopReason::Interrupted => format!("interrupted after {done}"),
    }
}

/// `8.3 s`, `41 s`, `6 min 10 s`, `1 h 02 min`; a question mark for what is no time.
pub(super) fn time(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    // Times of display are far below 2^64 seconds, and the cast saturates.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// `0:41`, `6:10`, `1:02:00`.
fn clock(seconds: f64) -> String {
    // The cast saturates, and converts NaN to 0.
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
