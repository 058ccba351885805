//! What a run leaves behind: best weights, pictures, and the last words on the terminal.

use prost::Message;
use proto::v1;

use super::{KeepError, Observers};
use crate::observe::console::Summary;
use crate::observe::metrics::{self, RunState};
use crate::observe::report::{curves, grid};
use crate::store::{BEST_WEIGHTS, CURVES, JournalEntry, PREDICTIONS, StoreError, Upload};
use coordinator_core::event::{Outcome, StopReason};

impl Observers {
    /// Where the next best weights go.
    ///
    /// # Errors
    /// When the run directory takes no file.
    pub fn begin_best(&self) -> Result<Upload, StoreError> {
        self.store.begin_upload(BEST_WEIGHTS)
    }

    /// Draws the predictions that rank 0 sent.
    ///
    /// # Errors
    /// When they cannot be read, drawn or written.
    pub fn predictions(&mut self, bytes: &[u8]) -> Result<(), KeepError> {
        let predictions = v1::Predictions::decode(bytes)
            .map_err(|error| KeepError::Predictions(error.to_string()))?;
        let picture = grid::render(&self.tiles(predictions))?;
        self.store.write(PREDICTIONS, &picture)?;
        self.show_predictions();
        Ok(())
    }

    /// Tells everyone how the run ended.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.progress.clear();
        if let Some(traces) = self.traces.take() {
            traces.ended(outcome);
        }
        // Whoever is missing now is so because the run is over, unless it failed for want of them.
        self.missing = if outcome.is_ok() { 0 } else { self.missing };
        self.census(0, 0);
        self.draw_curves(match outcome {
            Ok(StopReason::Patience) => "the validation loss no longer improved",
            Ok(StopReason::MaxEpochs) => "all epochs done",
            Ok(StopReason::NonFiniteLoss) => "the loss was not finite",
            Ok(StopReason::Interrupted) => "interrupted",
            Err(_) => "failed",
        });
        self.journal(match outcome {
            Ok(reason) => JournalEntry::Ended {
                reason: reason.label().to_owned(),
                ok: true,
            },
            Err(error) => JournalEntry::Ended {
                reason: error.to_string(),
                ok: false,
            },
        });
        if let Some(label) = metrics::stop_label(outcome) {
            self.metrics.set_stop_reason(label);
        }
        let Ok(reason) = *outcome else {
            return self.enter(RunState::Failed);
        };
        self.enter(RunState::Finished);
        self.status
            .send_modify(|status| status.stop_reason = Some(reason.label().to_owned()));
        let files = std::fs::read_dir(self.store.root()).map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect()
            },
        );
        self.progress.summary(&Summary {
            reason,
            epochs: self.store.epochs().len() as u32,
            patience: self.patience,
            best: self.best().cloned(),
            seconds: self.started.elapsed().as_secs_f64(),
            run_dir: self.store.root().to_owned(),
            files,
        });
    }

    fn draw_curves(&mut self, stop: &str) {
        if self.store.epochs().is_empty() {
            return;
        }
        let best = self.stopping.best.map(|best| best.epoch);
        match curves::render(self.store.epochs(), best, stop) {
            Ok(picture) => self.keep(|store| store.write(CURVES, &picture)),
            Err(error) => self.broken(error.into()),
        }
    }

    fn tiles(&self, predictions: v1::Predictions) -> Vec<grid::Tile> {
        let Some((classes, files)) = &self.split else {
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
