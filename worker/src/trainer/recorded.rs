//! Parts of the usual step, recorded as CUDA graphs: one call instead of some hundred, which take
//! longer than a small batch computes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use c10d::Graph;
use worker_control::TrainError;

use super::failure::{device, panicked};
use super::step::StepKind;

/// Steps of one kind that are computed as any other before one is recorded. By then cuDNN has
/// chosen its algorithms.
const BEFORE: u32 = 3;

/// One part of a step: its recording, and what led to it.
#[derive(Debug)]
pub(super) struct Recorder<T> {
    seen: Option<(StepKind, u32)>,
    recorded: Option<(StepKind, Graph, T)>,
    /// CUDA has refused. It would again.
    refused: bool,
}

impl<T> Default for Recorder<T> {
    fn default() -> Self {
        Self {
            seen: None,
            recorded: None,
            refused: false,
        }
    }
}

impl<T: Clone> Recorder<T> {
    /// Does `work`, which asks a GPU for the same on the same memory whenever the kind of the step
    /// is the same. On `gpu` it is recorded after some times, and replayed from then on. Returns
    /// what `work` returned when it was last called.
    pub(super) fn run(
        &mut self,
        kind: StepKind,
        gpu: Option<u32>,
        mut work: impl FnMut() -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let Some(gpu) = gpu.filter(|_| !self.refused) else {
            return work();
        };
        if self.recorded.as_ref().is_none_or(|(of, _, _)| *of != kind) {
            let seen = match self.seen {
                Some((before, seen)) if before == kind => seen + 1,
                _ => 1,
            };
            self.seen = Some((kind, seen));
            if seen > BEFORE {
                // Its memory is free for the next one.
                self.recorded = None;
                self.record(kind, gpu, &mut work);
            }
        }
        match &self.recorded {
            Some((of, graph, result)) if *of == kind => {
                graph.replay().map_err(device)?;
                Ok(result.clone())
            }
            _ => work(),
        }
    }

    /// Records `work`, which is not done by that.
    fn record(&mut self, kind: StepKind, gpu: u32, work: impl FnOnce() -> Result<T, TrainError>) {
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            let (graph, result) = Graph::record(gpu, work).map_err(device)?;
            Ok((graph, result?))
        }));
        match recorded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
            Ok((graph, result)) => {
                let images = kind.local;
                tracing::debug!(images, "recorded a part of the step as a CUDA graph");
                self.recorded = Some((kind, graph, result));
            }
            Err(error) => {
                tracing::warn!(
                    reason = %error,
                    "cannot record a part of the step as a CUDA graph: small batches take longer"
                );
                self.refused = true;
            }
        }
    }
}
