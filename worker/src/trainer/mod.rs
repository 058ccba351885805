//! The training thread: it owns every tensor, and performs the tasks of `worker_control` one at a
//! time. The order of the tasks is decided there; this thread knows neither messages nor sessions.

pub mod activity;
pub mod link;
pub mod optimizer;
pub mod setup;

mod best;
mod device;
mod epoch;
mod evaluate;
mod failure;
mod form;
mod group;
mod images;
mod predict;
mod prepare;
pub mod processors;
mod reduction;
mod repeated;
mod replica;
mod resident;
mod snapshot;
mod step;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::manifest::Manifest;
use common::trace::Spans;
use worker_control::{Activity, Control, Done, Report, SaveState, Task, TrainError};

use crate::model::weights;
use activity::ActivityTracker;
use device::Compute;
use epoch::EpochRun;
use failure::{data_failure, internal};
use group::RankHandle;
use link::{Download, Link, Outgoing, Scanned, SharedInbox, Unwritten, Upload};
use processors::Processors;
use repeated::Repeated;
use replica::Replica;
use resident::Residence;
use setup::{Images, Settings, Setup};
use snapshot::Snapshot;
use worker_data::{Cache, demo};

/// Performs one task after the other, until one of them ends the thread.
///
/// # Errors
/// The failure to report to the coordinator, when this worker cannot continue.
pub fn run(
    setup: &Setup,
    inbox: &SharedInbox,
    link: &Link,
    activity: &ActivityTracker,
    spans: Option<&Spans>,
) -> Result<(), TrainError> {
    let settings = &setup.settings;
    let compute = device::choose(settings)?;
    let manifest = Arc::new(scan(setup)?);
    let mut worker = Worker {
        setup,
        settings,
        link,
        activity,
        spans,
        compute,
        labels: manifest.files.iter().map(|file| file.label).collect(),
        manifest,
        cache: None,
        residence: Residence::default(),
        group: None,
        rank: None,
        repeated: Repeated::default(),
        epoch: None,
        control: Control::new(!settings.frozen_batch_norm),
    };
    let idle = || activity.enter(Activity::Idle);
    loop {
        let done = match inbox.next(&mut worker.control, idle) {
            Task::End(result) => {
                worker.end_epoch(Err("the training thread ended"));
                return result;
            }
            // A panic has an end here: it says what libtorch said.
            task => catch_unwind(AssertUnwindSafe(|| worker.perform(task)))
                .unwrap_or_else(|payload| Err(failure::panicked(payload.as_ref()))),
        };
        if let Err(error) = &done {
            tracing::warn!(reason = %error, "the process group broke or cannot be used");
            worker.end_epoch(Err(&error.to_string()));
        }
        worker.control.done(done);
    }
}

fn scan(setup: &Setup) -> Result<Manifest, TrainError> {
    let folder = match &setup.images {
        Images::Coordinator(listed) => return Ok(listed.clone()),
        Images::Demo(folder) => &demo::ensure(folder).map_err(data_failure)?,
        Images::Folder(folder) => folder,
    };
    Manifest::scan(folder, setup.settings.limit_per_class).map_err(data_failure)
}

struct Worker<'a> {
    setup: &'a Setup,
    settings: &'a Settings,
    link: &'a Link,
    activity: &'a ActivityTracker,
    /// Where traces go, if anywhere.
    spans: Option<&'a Spans>,
    compute: Compute,
    manifest: Arc<Manifest>,
    /// Class of each image.
    labels: Arc<[u32]>,
    cache: Option<Cache>,
    residence: Residence,
    /// A group that is complete, and has no state yet.
    group: Option<c10d::ProcessGroup>,
    rank: Option<RankHandle>,
    repeated: Repeated,
    epoch: Option<EpochRun>,
    control: Control<Replica>,
}

impl Worker<'_> {
    fn perform(&mut self, task: Task) -> Result<Done<Replica>, TrainError> {
        match task {
            Task::Wait | Task::End(_) => {}
            Task::Scan(retained) => {
                self.activity.enter(Activity::Idle);
                self.link.send(Outgoing::Scanned(Scanned {
                    fingerprint: self.manifest.fingerprint(),
                    manifest: Arc::clone(&self.manifest),
                    device: self.compute.name(),
                    native_bf16: self.compute.native_bf16,
                    gpu_uuid: self.compute.gpu_uuid.clone(),
                    processors: Processors::of_this_process(),
                    retained,
                }));
            }
            Task::Prepare(order) => return self.prepare(&order).map(Done::Prepared),
            Task::Leave => {
                self.end_epoch(Err("cancelled"));
                (self.group, self.rank) = (None, None);
                self.repeated = Repeated::default();
            }
            Task::Rendezvous(assignment) => self.rendezvous(&assignment)?,
            Task::Create { pretrained } => return self.create(pretrained).map(Done::Created),
            Task::LoadCheckpoint(position) => {
                let file = self.fetch(Download::Checkpoint(position))?;
                self.state()?.load_checkpoint(&file)?;
            }
            Task::Broadcast(assignment) => self.broadcast(&assignment)?,
            Task::Step { plan, index } => return self.step(&plan, index),
            Task::AverageBatchNorm => self.average_batch_norm()?,
            Task::Validate { plan, index } => return self.validate(&plan, index),
            Task::Settle => return self.settle(),
            Task::CopyWeights => {
                self.activity.enter(Activity::Idle);
                return Snapshot::take(self.state()?.model.state()).map(Done::Copied);
            }
            Task::Upload(what) => self.upload(what)?,
            Task::Predict(samples) => {
                self.end_epoch(Err("stopped"));
                self.activity.enter(Activity::Idle);
                // A run can end without its predictions.
                if let Err(error) = self.predict(&samples) {
                    tracing::warn!(reason = %error, "cannot compute the predictions");
                }
            }
            Task::Report(report) => {
                match &report {
                    Report::EpochDone(report) => self.end_epoch(Ok(report)),
                    Report::Finished { .. } => self.end_epoch(Err("stopped")),
                    _ => {}
                }
                self.link.send(Outgoing::Report(report));
            }
        }
        Ok(Done::Plain)
    }

    /// The state. `worker_control` requests a change only when there is one.
    fn state(&mut self) -> Result<&mut Replica, TrainError> {
        let state = self.control.state_mut();
        state.ok_or_else(|| internal("there is no state"))
    }

    fn upload(&mut self, what: SaveState) -> Result<(), TrainError> {
        let upload = match what {
            SaveState::Checkpoint => {
                let state = self.state()?;
                let snapshot = state.snapshot()?;
                let write = move || {
                    weights::to_safetensors(&snapshot.tensors()?, &BTreeMap::new())
                        .map_err(internal)
                };
                Upload::Checkpoint {
                    position: state.position,
                    file: Unwritten::new(write),
                }
            }
            SaveState::Best(epoch) => {
                let best = self.control.best();
                let best = best.ok_or_else(|| internal("there is no copy of the best weights"))?;
                let file = best::to_file(best, &self.manifest.classes, self.settings.image_size)?;
                Upload::Best { epoch, file }
            }
        };
        self.link.send(Outgoing::Upload(upload));
        Ok(())
    }

    /// With a model of its own: the state stays what the run would go on from.
    fn predict(&self, samples: &[u32]) -> Result<(), TrainError> {
        let (Some(state), Some(cache)) = (self.control.state(), &self.cache) else {
            return Err(internal("predictions without images or without a state"));
        };
        let mut best = self.create(false)?;
        best.compute_in(state.precision());
        best::load(&mut best.model, &self.fetch(Download::Best)?)?;
        let predictions = predict::predict(&best, cache, samples, &self.compute)?;
        self.link
            .send(Outgoing::Upload(Upload::Predictions(predictions)));
        Ok(())
    }

    /// Waits for a blob of the run directory.
    fn fetch(&self, blob: Download) -> Result<Vec<u8>, TrainError> {
        let (reply, answer) = std::sync::mpsc::channel();
        self.link.send(Outgoing::Fetch { blob, reply });
        match answer.recv() {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(message)) => Err(TrainError::Collective(message)),
            Err(_) => Err(failure::collective("the session broke during a download")),
        }
    }
}
