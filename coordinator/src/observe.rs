//! Carries what the core wants known to those who watch: run directory, metrics, status page,
//! terminal. It takes no decision, and nothing flows back but the failure to write.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prost::Message;
use proto::v1;
use tokio::sync::watch;

use crate::admin::{BestEpoch, Status};
use crate::core::event::{EpochSummary, StepReport, StopReason};
use crate::core::schedule::{LAYER_GROUPS, LayerRates};
use crate::core::{Notice, Outcome};
use crate::launcher::WorkerExit;
use crate::metrics::{self, Metrics, RunState, StepSeconds, WorkerState};
use crate::progress::{EpochRow, Progress, StepView, Summary};
use crate::report::curves::EpochPoint;
use crate::report::{ReportError, curves, grid};
use crate::store::{BEST_WEIGHTS, CURVES, EpochRecord, PREDICTIONS, RunStore, Split, StoreError};

/// Why something that a run must keep could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The run directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The cache that local workers share.
    #[error("cannot make the shared image cache: {0}")]
    Cache(#[from] std::io::Error),
    /// A blob that its sender encoded wrongly.
    #[error("a worker's predictions cannot be read: {0}")]
    Predictions(String),
}

/// All observers of a run, and what they need to remember.
pub struct Observers {
    store: RunStore,
    metrics: Metrics,
    status: watch::Sender<Status>,
    progress: Progress,
    started: Instant,
    epochs: u32,
    patience: u32,
    split: Option<(Vec<String>, Vec<String>)>,
    epoch: EpochSoFar,
    history: Vec<EpochPoint>,
    best: Option<(u32, f64, f64)>,
    exits: Vec<WorkerExit>,
    broken: Option<KeepError>,
}

/// Sums over the steps of the running epoch.
#[derive(Debug)]
struct EpochSoFar {
    epoch: u32,
    steps: u32,
    started: Instant,
    loss_sum: f64,
    samples: u64,
    /// Not yet in the metrics, as their step is not complete.
    uncounted: u64,
    completed: BTreeMap<u32, u32>,
}

impl Observers {
    /// Observers of a run of at most `epochs` epochs.
    pub fn new(
        store: RunStore,
        metrics: Metrics,
        status: watch::Sender<Status>,
        progress: Progress,
        epochs: u32,
        patience: u32,
    ) -> Self {
        let epoch = EpochSoFar {
            epoch: 0,
            steps: 0,
            started: Instant::now(),
            loss_sum: 0.0,
            samples: 0,
            uncounted: 0,
            completed: BTreeMap::new(),
        };
        Self {
            store,
            metrics,
            status,
            progress,
            started: Instant::now(),
            epochs,
            patience,
            split: None,
            epoch,
            history: Vec::new(),
            best: None,
            exits: Vec::new(),
            broken: None,
        }
    }

    /// Where the run's files lie.
    pub fn run_dir(&self) -> &Path {
        self.store.root()
    }

    /// Processes that have ended so far.
    pub fn exits(&self) -> &[WorkerExit] {
        &self.exits
    }

    /// Remembers a process that ended.
    pub fn exited(&mut self, exit: WorkerExit) {
        self.exits.push(exit);
    }

    /// Remembers the first thing that could not be kept.
    pub fn broken(&mut self, error: KeepError) {
        self.broken.get_or_insert(error);
    }

    /// Hands out what could not be kept, once.
    pub fn take_broken(&mut self) -> Option<KeepError> {
        self.broken.take()
    }

    /// A line for whoever started the run.
    pub fn say(&mut self, line: &str) {
        self.progress.say(line);
    }

    /// Takes a notice of the core into account.
    pub fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Member {
                joined,
                expected,
                host,
                ..
            } => self.joined(joined, expected, &host),
            Notice::Preparing { done, total } => {
                self.metrics.set_run_state(RunState::Preparing);
                self.progress.preparing(done as u64, total as u64);
            }
            Notice::BadFile { path, reason } => {
                self.metrics.add_decode_errors(1);
                self.progress.say(&format!("skipped {path}: {reason}"));
            }
            Notice::SplitReady {
                classes,
                files,
                split,
            } => {
                let paths = |indices: &[u32]| {
                    indices
                        .iter()
                        .filter_map(|at| files.get(*at as usize).cloned())
                        .collect()
                };
                let record = Split {
                    classes: classes.clone(),
                    train: paths(&split.train),
                    validation: paths(&split.validation),
                };
                self.progress.say(&format!(
                    "data: {} classes, {} images to train on, {} to validate",
                    classes.len(),
                    record.train.len(),
                    record.validation.len()
                ));
                self.keep(|store| store.write_split(&record));
                self.split = Some((classes, files));
            }
            Notice::GroupFormed {
                generation,
                world_size,
                backend,
                precision,
            } => {
                self.metrics.set_generation(generation);
                self.status.send_modify(|status| {
                    status.generation = generation;
                    status.world_size = world_size as usize;
                });
                self.progress.say(&format!(
                    "group: {world_size} ranks over {backend}, computing in {precision}"
                ));
            }
            Notice::EpochStarted {
                epoch,
                steps,
                rates,
                ..
            } => {
                self.epoch_started(epoch, steps, rates);
            }
            Notice::Step { rank, report } => self.step(rank, &report),
            Notice::EpochEnded(summary) => self.epoch_ended(&summary),
            Notice::Stopping(reason) => {
                if reason == StopReason::Interrupted {
                    self.progress
                        .say("stopping after the current steps; again to stop at once");
                }
                self.metrics.set_run_state(RunState::Finishing);
                self.status
                    .send_modify(|status| "finishing".clone_into(&mut status.state));
            }
        }
    }

    /// Stores a blob that a worker sent.
    ///
    /// # Errors
    /// When it cannot be written or read.
    pub fn blob(&mut self, header: &v1::BlobHeader, bytes: &[u8]) -> Result<(), KeepError> {
        match header.kind() {
            v1::BlobKind::BestState => {
                let mut upload = self.store.begin_upload(BEST_WEIGHTS)?;
                upload.write(bytes)?;
                upload.commit(&header.sha256)?;
            }
            v1::BlobKind::Predictions => {
                let predictions = v1::Predictions::decode(bytes)
                    .map_err(|error| KeepError::Predictions(error.to_string()))?;
                let picture = grid::render(&self.tiles(predictions))?;
                self.store.write(PREDICTIONS, &picture)?;
            }
            v1::BlobKind::Unspecified => {
                return Err(KeepError::Predictions("a blob of no known kind".to_owned()));
            }
        }
        Ok(())
    }

    /// Tells everyone how the run ended.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.progress.clear();
        self.draw_curves(match outcome {
            Ok(reason) => reason.as_str(),
            Err(_) => "failed",
        });
        let Ok(reason) = outcome else {
            self.metrics.set_run_state(RunState::Failed);
            self.status
                .send_modify(|status| "failed".clone_into(&mut status.state));
            return;
        };
        let reason = label(*reason);
        self.metrics.set_run_state(RunState::Finished);
        self.metrics.set_stop_reason(reason);
        self.status.send_modify(|status| {
            "finished".clone_into(&mut status.state);
            status.stop_reason = Some(reason.label().to_owned());
        });
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
            epochs: self.history.len() as u32,
            patience: self.patience,
            best: self.best,
            seconds: self.started.elapsed().as_secs_f64(),
            run_dir: self.store.root().to_owned(),
            files,
        });
    }

    fn joined(&mut self, joined: usize, expected: usize, host: &str) {
        self.metrics.set_workers(WorkerState::Joined, joined);
        self.metrics.set_workers(WorkerState::Healthy, joined);
        self.status.send_modify(|status| {
            status.waiting_for =
                (joined < expected).then(|| format!("{} more workers", expected - joined));
        });
        tracing::info!(joined, expected, host, "a worker joined");
    }

    fn epoch_started(&mut self, epoch: u32, steps: u32, rates: LayerRates) {
        self.epoch = EpochSoFar {
            epoch,
            steps,
            started: Instant::now(),
            loss_sum: 0.0,
            samples: 0,
            uncounted: 0,
            completed: BTreeMap::new(),
        };
        self.metrics.set_run_state(RunState::Training);
        self.metrics
            .begin_epoch(epoch, LAYER_GROUPS.iter().zip(rates));
        self.status.send_modify(|status| {
            "training".clone_into(&mut status.state);
            status.waiting_for = None;
            status.epoch = epoch;
            status.step = 0;
            status.steps_per_epoch = steps.into();
        });
    }

    fn step(&mut self, rank: u32, report: &StepReport) {
        let before = self.epoch.slowest();
        self.epoch.completed.insert(rank, report.completed);
        self.epoch.loss_sum += report.loss_sum;
        self.epoch.samples += u64::from(report.samples);
        self.metrics.rank_step(
            rank as usize,
            StepSeconds {
                step: report.seconds,
                data_wait: report.phases.data_wait,
                forward_backward: report.phases.forward_backward,
                allreduce_wait: report.phases.allreduce_wait,
                optimizer: report.phases.optimizer,
            },
        );
        self.epoch.uncounted += u64::from(report.samples);
        let done = self.epoch.slowest();
        if done == before {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |t| t.as_secs_f64());
        self.metrics
            .step_done(std::mem::take(&mut self.epoch.uncounted), now);
        let elapsed = self.epoch.started.elapsed().as_secs_f64();
        let loss = self.epoch.loss_sum / self.epoch.samples.max(1) as f64;
        let images_per_second = self.epoch.samples as f64 / elapsed.max(1e-9);
        self.metrics.set_training(loss, images_per_second);
        self.status.send_modify(|status| {
            status.step = done.into();
            status.train_loss = Some(loss);
            status.images_per_second = images_per_second;
        });
        self.progress.step(&StepView {
            epoch: self.epoch.epoch,
            epochs: self.epochs,
            step: done.into(),
            steps: self.epoch.steps.into(),
            loss,
            images_per_second,
            elapsed,
        });
    }

    fn epoch_ended(&mut self, summary: &EpochSummary) {
        let record = EpochRecord {
            epoch: summary.epoch,
            train_loss: summary.train_loss,
            validation_loss: summary.validation_loss,
            validation_accuracy: summary.validation_accuracy,
            learning_rates: LAYER_GROUPS
                .iter()
                .zip(summary.rates)
                .map(|(group, rate)| ((*group).to_owned(), rate))
                .collect(),
            images_per_second: summary.images_per_second,
            seconds: summary
                .phases
                .named()
                .into_iter()
                .chain([("total", summary.seconds)])
                .map(|(phase, seconds)| (phase.to_owned(), seconds))
                .collect(),
            world_size: summary.world_size as usize,
            generation: summary.generation,
        };
        if summary.improved {
            self.best = Some((
                summary.epoch,
                summary.validation_loss,
                summary.validation_accuracy,
            ));
        }
        self.history.push(EpochPoint {
            epoch: summary.epoch,
            train_loss: summary.train_loss,
            validation_loss: summary.validation_loss,
            validation_accuracy: summary.validation_accuracy,
        });
        self.keep(|store| store.append_epoch(&record));
        self.metrics
            .set_validation(summary.validation_loss, summary.validation_accuracy);
        for rank in self.epoch.completed.keys() {
            // The counter of samples has no rank, so the first one brings all of them.
            let samples = if *rank == 0 { summary.validated } else { 0 };
            self.metrics
                .rank_validation(*rank as usize, summary.phases.validation, samples);
        }
        if let Some((epoch, loss, _)) = self.best {
            self.metrics.set_best(epoch, loss, summary.wait);
        }
        let best = self.best;
        self.status.send_modify(|status| {
            status.best = best.map(|(epoch, validation_loss, validation_accuracy)| BestEpoch {
                epoch,
                validation_loss,
                validation_accuracy,
            });
            status.last_epoch = Some(record);
        });
        self.progress.epoch(&EpochRow {
            epoch: summary.epoch,
            epochs: self.epochs,
            train_loss: summary.train_loss,
            validation_loss: summary.validation_loss,
            validation_accuracy: summary.validation_accuracy,
            images_per_second: summary.images_per_second,
            seconds: summary.seconds,
            best: summary.improved,
        });
    }

    fn draw_curves(&mut self, stop: &str) {
        if self.history.is_empty() {
            return;
        }
        let best = self.best.map(|(epoch, ..)| epoch);
        match curves::render(&self.history, best, stop) {
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

    fn keep(&mut self, write: impl FnOnce(&mut RunStore) -> Result<(), StoreError>) {
        if let Err(error) = write(&mut self.store) {
            self.broken(error.into());
        }
    }
}

impl EpochSoFar {
    fn slowest(&self) -> u32 {
        self.completed.values().copied().min().unwrap_or(0)
    }
}

/// The same reason as the metrics name it.
fn label(reason: StopReason) -> metrics::StopReason {
    match reason {
        StopReason::Patience => metrics::StopReason::Patience,
        StopReason::MaxEpochs => metrics::StopReason::MaxEpochs,
        StopReason::NonFiniteLoss => metrics::StopReason::NonFiniteLoss,
        StopReason::Interrupted => metrics::StopReason::Interrupted,
    }
}
