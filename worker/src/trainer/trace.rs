//! This rank's part of an epoch as a span, within the coordinator's span of that epoch.

use std::time::SystemTime;

use common::trace::{Span, TraceId};
use proto::v1;

/// What became of `plan` since `started`.
pub(super) fn part(
    trace: TraceId,
    plan: &v1::EpochPlan,
    rank: u32,
    started: SystemTime,
    made: &Result<Option<v1::EpochReport>, v1::Failure>,
) -> Span {
    let (epoch, generation) = (plan.epoch, plan.generation);
    let parent = trace.epoch(epoch, generation);
    let id = trace.rank(epoch, generation, rank);
    let span = Span::new("rank", id, Some(parent), started)
        .count("rank", rank)
        .count("epoch", epoch)
        .count("generation", generation);
    match made {
        Ok(Some(report)) => {
            let phases = report.phases.unwrap_or_default();
            span.count("samples", report.samples)
                .with("data_wait_seconds", phases.data_wait)
                .with("forward_backward_seconds", phases.forward_backward)
                .with("allreduce_wait_seconds", phases.allreduce_wait)
                .with("optimizer_seconds", phases.optimizer)
                .with("validation_seconds", phases.validation)
        }
        Ok(None) => span.failed("called off"),
        Err(failure) => span.failed(&failure.message),
    }
}
