//! The usual step, which a GPU repeats from a recording: two calls instead of some hundred, which
//! take longer than a small batch computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use c10d::Graph;
use tch::Tensor;
use worker_control::TrainError;

use super::failure::{device, internal, panicked};
use super::step::StepKind;
use worker_data::Batch;

/// Steps of one kind that are launched as any other before one is recorded. By then cuDNN has
/// chosen its algorithms.
const BEFORE: u32 = 3;

/// The recording of a generation, and what led to it.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    /// Of the steps that are counted, and recorded.
    kind: Option<StepKind>,
    seen: u32,
    mode: Mode,
    /// What a recorded step reads.
    batch: Option<Batch>,
    /// Gradients in place, and the rank's part of the mean loss.
    gradients: Part<Rc<Tensor>>,
    /// Reads those gradients where they were recorded: neither part is recorded without the other.
    update: Part<()>,
}

/// How the step under way gets to the device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    Launch,
    /// It is recorded on this GPU, and replayed.
    Record(u32),
    Replay,
    /// As `Launch`, from now on: CUDA has refused to record, and would again.
    Refused,
}

/// A recorded part of the step, and what its work returned.
#[derive(Debug)]
struct Part<T>(Option<(Graph, T)>);

impl Repeated {
    /// Begins a step, on `gpu` if it may be repeated; the batch, where its work reads it.
    pub(super) fn begin(
        &mut self,
        kind: StepKind,
        gpu: Option<u32>,
        batch: Batch,
    ) -> Result<Batch, TrainError> {
        if self.mode == Mode::Refused {
            // The part that was recorded, if one was, holds much memory.
            self.gradients = Part::default();
            return Ok(batch);
        }
        let Some(gpu) = gpu else {
            self.mode = Mode::Launch;
            return Ok(batch);
        };
        if self.kind != Some(kind) {
            *self = Self {
                kind: Some(kind),
                ..Self::default()
            };
        }
        self.mode = match self.seen {
            0..BEFORE => Mode::Launch,
            BEFORE => Mode::Record(gpu),
            _ => Mode::Replay,
        };
        self.seen = self.seen.saturating_add(1);
        let Some(place) = &mut self.batch else {
            self.batch = Some(batch.share());
            return Ok(batch);
        };
        place.images.f_copy_(&batch.images).map_err(internal)?;
        place.labels.f_copy_(&batch.labels).map_err(internal)?;
        Ok(place.share())
    }

    /// Does `work`, which computes the gradients.
    pub(super) fn gradients(
        &mut self,
        work: impl FnMut() -> Result<Rc<Tensor>, TrainError>,
    ) -> Result<Rc<Tensor>, TrainError> {
        self.gradients.run(&mut self.mode, work)
    }

    /// Does `work`, which updates the state by the gradients.
    pub(super) fn update(
        &mut self,
        work: impl FnMut() -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        self.update.run(&mut self.mode, work)
    }
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Part<T> {
    fn run(
        &mut self,
        mode: &mut Mode,
        mut work: impl FnMut() -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        if let Mode::Record(gpu) = *mode {
            match record(gpu, &mut work) {
                Ok(recorded) => self.0 = Some(recorded),
                Err(error) => {
                    tracing::warn!(
                        reason = %error,
                        "cannot record the training step as a CUDA graph: small batches take longer"
                    );
                    *mode = Mode::Refused;
                }
            }
        }
        match (*mode, &self.0) {
            (Mode::Record(_) | Mode::Replay, Some((graph, result))) => {
                graph.replay().map_err(device)?;
                Ok(result.clone())
            }
            _ => work(),
        }
    }
}

/// Records `work`, which is not done by that.
fn record<T>(
    gpu: u32,
    work: impl FnOnce() -> Result<T, TrainError>,
) -> Result<(Graph, T), TrainError> {
    let recorded = catch_unwind(AssertUnwindSafe(|| {
        let (graph, result) = Graph::record(gpu, work).map_err(device)?;
        Ok((graph, result?))
    }));
    recorded.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}
