//! An epoch of this rank: its batches, the results that are still to come, and its span in the
//! trace.

use std::sync::Arc;
use std::time::SystemTime;

use common::trace::Span;
use worker_control::{EpochPlan, EpochReport, TrainError};

use super::Worker;
use super::evaluate::BegunChunks;
use super::failure::internal;
use super::resident::Residence;
use super::step::BegunStep;
use worker_data::{Batches, Loader};

/// An epoch that is trained and validated.
pub(super) struct EpochRun {
    plan: Arc<EpochPlan>,
    pub(super) training: Batches,
    pub(super) validation: Option<Batches>,
    pub(super) begun: Vec<BegunStep>,
    pub(super) chunks: Vec<BegunChunks>,
    started: SystemTime,
}

impl Worker<'_> {
    /// Begins the epoch with the first task that needs it.
    pub(super) fn begin_epoch(&mut self, plan: &Arc<EpochPlan>) -> Result<(), TrainError> {
        let runs = |run: &EpochRun| Arc::ptr_eq(&run.plan, plan);
        if !self.epoch.as_ref().is_some_and(runs) {
            self.choose_residence()?;
            let run = EpochRun {
                training: self.batches(batches(plan))?,
                validation: None,
                begun: Vec::new(),
                chunks: Vec::new(),
                started: SystemTime::now(),
                plan: Arc::clone(plan),
            };
            self.epoch = Some(run);
        }
        Ok(())
    }

    /// The images and labels of these lists of samples, in this order.
    pub(super) fn batches(&self, batches: Vec<Vec<u32>>) -> Result<Batches, TrainError> {
        let (Some(cache), Some(replica)) = (&self.cache, self.control.state()) else {
            return Err(internal("an epoch without images or without a state"));
        };
        let kind = replica.image_kind();
        let batches = match &self.residence {
            Residence::Gpu(resident) => resident.batches(batches, kind).map(Batches::Resident),
            Residence::Undecided | Residence::Cpu => {
                let labels = Arc::clone(&self.labels);
                Loader::new(cache.share(), labels, batches, self.compute.device, kind)
                    .map(Batches::Loaded)
            }
        };
        batches.map_err(internal)
    }

    /// Ends the epoch that runs, if one does, and its span within the coordinator's span.
    pub(super) fn end_epoch(&mut self, result: Result<&EpochReport, &str>) {
        let (Some(run), Some(spans)) = (self.epoch.take(), self.spans) else {
            return;
        };
        let rank = self.rank.as_ref().map_or(0, |rank| rank.rank);
        let (epoch, generation) = (run.plan.epoch, run.plan.generation);
        let trace = spans.trace();
        let parent = trace.epoch(epoch, generation);
        let id = trace.rank(epoch, generation, rank);
        let span = Span::new("rank", id, Some(parent), run.started)
            .count("rank", rank)
            .count("epoch", epoch)
            .count("generation", generation);
        spans.send(match result {
            Ok(report) => span
                .count("samples", report.samples)
                .with("data_wait_seconds", report.phases.data_wait)
                .with("forward_backward_seconds", report.phases.forward_backward)
                .with("allreduce_wait_seconds", report.phases.allreduce_wait)
                .with("optimizer_seconds", report.phases.optimizer)
                .with("validation_seconds", report.phases.validation),
            Err(reason) => span.failed(reason),
        });
    }
}

/// The samples of each step; where the rank has none, the first image of the set is borrowed.
fn batches(plan: &EpochPlan) -> Vec<Vec<u32>> {
    let mut samples = plan.samples.as_slice();
    let batch = |&count: &u32| {
        let (batch, rest) = samples.split_at((count as usize).min(samples.len()));
        samples = rest;
        match batch.is_empty() {
            true => vec![0],
            false => batch.to_vec(),
        }
    };
    plan.local_counts.iter().map(batch).collect()
}
