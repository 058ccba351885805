//! The usual step of a rank without peers, recorded as a CUDA graph: one call instead of some
//! hundred, which take longer than a small batch computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use c10d::Graph;
use tch::Tensor;
use worker_control::{Phases, TrainError};

use super::failure::{device, internal, panicked};
use super::step::{Computed, StepKind};
use worker_data::Batch;

/// Steps of one kind that are computed as any other before one is recorded. By then cuDNN has
/// chosen its algorithms.
const BEFORE: u32 = 3;

/// The recording of a generation, and what led to it.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    seen: Option<(StepKind, u32)>,
    recorded: Option<Recorded>,
    /// CUDA has refused. It would again.
    refused: bool,
}

#[derive(Debug)]
struct Recorded {
    kind: StepKind,
    graph: Graph,
    /// The batch that it reads.
    batch: Batch,
    /// What it writes: float32 `[1]`.
    mean_loss: Tensor,
}

impl Recorder {
    /// One step, which `compute` asks for: its mean loss, float32 `[1]`. On `gpu` it is recorded
    /// after some of its kind, and replayed from then on.
    pub(super) fn step(
        &mut self,
        kind: StepKind,
        gpu: Option<u32>,
        batch: &Batch,
        mut compute: impl FnMut(&Batch) -> Result<Computed, TrainError>,
    ) -> Result<Computed, TrainError> {
        let Some(gpu) = gpu else {
            return compute(batch);
        };
        if self.recorded.as_ref().is_none_or(|of| of.kind != kind) {
            self.seen = match self.seen {
                Some((before, seen)) if before == kind => Some((kind, seen + 1)),
                _ => Some((kind, 1)),
            };
            let often = self.seen.is_some_and(|(_, seen)| seen > BEFORE);
            if !often || self.refused || !self.record(kind, gpu, batch, &mut compute)? {
                return compute(batch);
            }
        }
        match &mut self.recorded {
            Some(recorded) => recorded.replay(batch),
            None => Err(internal("a replay without a recording")),
        }
    }

    /// Records a step; whether CUDA let it. The step itself is not made.
    fn record(
        &mut self,
        kind: StepKind,
        gpu: u32,
        batch: &Batch,
        compute: impl FnOnce(&Batch) -> Result<Computed, TrainError>,
    ) -> Result<bool, TrainError> {
        let batch = Batch {
            images: batch.images.f_empty_like().map_err(internal)?,
            labels: batch.labels.f_empty_like().map_err(internal)?,
        };
        // Its memory is free for the next one.
        self.recorded = None;
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            let (graph, computed) = Graph::record(gpu, || compute(&batch)).map_err(device)?;
            Ok((graph, computed?.mean_loss))
        }));
        match recorded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            Ok((graph, mean_loss)) => {
                let images = kind.local;
                tracing::info!(images, "recorded the training step as a CUDA graph");
                self.recorded = Some(Recorded {
                    kind,
                    graph,
                    batch,
                    mean_loss,
                });
            }
            Err(error) => {
                tracing::warn!(
                    reason = %error,
                    "cannot record the training step as a CUDA graph: small batches take longer"
                );
                self.refused = true;
            }
        }
        Ok(!self.refused)
    }
}

impl Recorded {
    fn replay(&mut self, batch: &Batch) -> Result<Computed, TrainError> {
        let began = Instant::now();
        let Batch { images, labels } = &mut self.batch;
        images.f_copy_(&batch.images).map_err(internal)?;
        labels.f_copy_(&batch.labels).map_err(internal)?;
        self.graph.replay().map_err(device)?;
        Ok(Computed {
            mean_loss: self.mean_loss.shallow_clone(),
            phases: Phases {
                forward_backward: began.elapsed().as_secs_f64(),
                ..Phases::default()
            },
        })
    }
}
