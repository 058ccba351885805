//! The results of a run: its images, which are drawn elsewhere, and the last lines on the
//! terminal.

use std::fmt;

use super::Observers;
use crate::observe::console::Summary;
use crate::observe::metrics::{self, RunState};
use crate::observe::report::{curves, grid};
use crate::store::Render;
use coordinator_core::event::{Outcome, StopReason};

/// Predictions of some validation images.
#[derive(Clone, PartialEq, Default)]
pub struct Predictions {
    /// Edge of the square images in pixels.
    pub image_size: u32,
    /// One for each image.
    pub predictions: Vec<Prediction>,
}

/// The prediction of one image.
#[derive(Clone, PartialEq, Default)]
pub struct Prediction {
    /// Its place in the list of files.
    pub sample: u32,
    /// The class with the highest probability.
    pub predicted: u32,
    /// That probability, 0 to 1.
    pub probability: f32,
    /// RGB bytes, row by row from the top left.
    pub pixels: Vec<u8>,
}

impl fmt::Debug for Predictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predictions of {} images", self.predictions.len())
    }
}

impl Observers {
    /// Prepares the drawing of predictions under the names of this run's classes.
    pub fn draw_predictions(&self, predictions: Predictions) -> Render {
        let tiles = self.tiles(predictions);
        Box::new(move || grid::render(&tiles))
    }

    /// Prepares the drawing of the curves of a run that ended so; none without an epoch.
    pub fn draw_curves(&self, outcome: &Outcome) -> Option<Render> {
        if self.view.finished.is_empty() {
            return None;
        }
        let stop = match outcome {
            Ok(StopReason::Patience) => "the validation loss no longer improved",
            Ok(StopReason::MaxEpochs) => "all epochs done",
            Ok(StopReason::NonFiniteLoss) => "the loss was not finite",
            Ok(StopReason::Interrupted) => "interrupted",
            Err(_) => "failed",
        };
        let epochs = self.view.finished.to_vec();
        let best = self.view.stopping.best.map(|best| best.epoch);
        Some(Box::new(move || curves::render(&epochs, best, stop)))
    }

    /// Shows how the run ended; `files` are in its directory.
    pub fn ended(&mut self, outcome: &Outcome, files: Vec<String>) {
        self.progress.clear();
        if let Some(traces) = self.traces.take() {
            traces.ended(outcome);
        }
        // A worker that is missing now ended with the run, unless the run failed for want of it.
        if outcome.is_ok() {
            self.view.forget_missing();
        }
        self.census(0, 0);
        if let Some(label) = metrics::stop_label(outcome) {
            self.metrics.set_stop_reason(label);
        }
        match *outcome {
            Ok(reason) => {
                self.enter(RunState::Finished);
                self.status
                    .change(|status| status.stop_reason = Some(reason.label().to_owned()));
                self.progress.summary(&Summary {
                    reason,
                    epochs: self.view.finished.len() as u32,
                    patience: self.patience,
                    best: self.view.best().cloned(),
                    seconds: self.started.elapsed().as_secs_f64(),
                    run_dir: self.run_dir.clone(),
                    files,
                });
            }
            Err(_) => self.enter(RunState::Failed),
        }
        self.status.publish();
    }

    /// The run is in its last state.
    fn enter(&mut self, state: RunState) {
        self.metrics.set_run_state(state);
        self.status.enter(state);
    }

    fn tiles(&self, predictions: Predictions) -> Vec<grid::Tile> {
        let Some((classes, files)) = &self.names else {
            return Vec::new();
        };
        let size = predictions.image_size;
        predictions
            .predictions
            .into_iter()
            .map(|prediction| grid::Tile {
                pixels: prediction.pixels,
                size,
                predicted: classes
                    .get(prediction.predicted as usize)
                    .cloned()
                    .unwrap_or_default(),
                truth: files
                    .get(prediction.sample as usize)
                    .and_then(|path| path.split('/').next())
                    .unwrap_or_default()
                    .to_owned(),
                probability: prediction.probability,
            })
            .collect()
    }
}
