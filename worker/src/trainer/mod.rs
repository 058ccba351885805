//! The training thread: it owns every tensor and does what the inbox says, one order at a time.
//!
//! ```text
//! Scan ─▶ Prepare ─▶ Assign ─▶ ( Plan ─▶ EpochResult )* ─▶ Finish ─▶ Shutdown
//!                           ▲             │ a peer or the coordinator is gone
//!                           └──── AbortGeneration ◀──┘
//! ```
//!
//! A group that breaks is no failure of this worker: it reports that, and waits with its state
//! for what comes next.

pub mod optimizer;

mod best;
mod device;
mod epoch;
mod evaluate;
mod failure;
mod form;
mod group;
mod hand_over;
mod images;
mod predict;
mod replica;
mod trace;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::trace::Spans;
use proto::v1;
use v1::worker_message::Message as Up;

use crate::agent::activity::ActivityTracker;
use crate::agent::address::Announced;
use crate::agent::setup::{Images, Setup};
use crate::control::{Inbox, Link, Order};
use crate::data::{Cache, Manifest, available_memory, bytes_needed, demo, fits_in_memory};
use best::Best;
use device::Compute;
use failure::{data_failure, environment};
use group::RankHandle;
use replica::Replica;

/// The share of decoded images between two reports of progress.
const PROGRESS_EVERY: usize = 32;

/// Trains as the orders in `inbox` say, until one of them ends it.
///
/// # Errors
/// What the coordinator is to be told when this worker cannot go on.
pub fn run(
    setup: &Setup,
    inbox: &Inbox,
    link: &Link,
    place: &ActivityTracker,
    spans: Option<&Spans>,
) -> Result<(), v1::Failure> {
    let settings = &setup.settings;
    let compute = device::choose(settings)?;
    let mut worker = Worker {
        manifest: scan(setup)?,
        remote: matches!(setup.images, Images::Coordinator(_)),
        warnings: &setup.warnings,
        settings,
        inbox,
        link,
        place,
        spans,
        compute,
        address: &setup.address,
        cache: None,
        replica: None,
        rank_handle: None,
        best: None,
    };
    loop {
        place.enter(v1::Phase::Unspecified);
        let order = inbox.next();
        let done = match &order {
            Order::Scan => worker.introduce(),
            Order::Prepare(order) => worker.prepare(order),
            Order::Assign(order) => worker.form(order),
            Order::Plan(plan) => worker.train(plan),
            Order::EpochResult(epoch_result) => worker.judge(epoch_result),
            Order::AbortGeneration(abort_generation) => worker.abort_generation(abort_generation),
            Order::SaveState(keep) => worker.keep(keep),
            Order::Finish(finish) => worker.finish(finish),
            Order::Shutdown(_) => return Ok(()),
        };
        match done {
            Err(failure) if failure.kind() == v1::FailureKind::Collective => {
                tracing::warn!(reason = failure.message, "the group broke");
                worker.leave();
                link.message(Up::Failure(failure));
            }
            other => other?,
        }
    }
}

fn scan(setup: &Setup) -> Result<Manifest, v1::Failure> {
    let limit = setup.settings.limit_per_class as usize;
    let limit = (limit > 0).then_some(limit);
    let folder = match &setup.images {
        Images::Coordinator(listed) => return Ok(listed.clone()),
        Images::Demo(folder) => &demo::ensure(folder).map_err(data_failure)?,
        Images::Folder(folder) => folder,
    };
    Manifest::scan(folder, limit).map_err(data_failure)
}

struct Worker<'a> {
    settings: &'a v1::Settings,
    inbox: &'a Inbox,
    link: &'a Link,
    place: &'a ActivityTracker,
    /// Where traces go, if anywhere.
    spans: Option<&'a Spans>,
    compute: Compute,
    /// Where this machine is reached by its peers.
    address: &'a Announced,
    /// What is wrong with this machine.
    warnings: &'a [String],
    manifest: Manifest,
    /// The images are with the coordinator.
    remote: bool,
    cache: Option<Cache>,
    replica: Option<Replica>,
    rank_handle: Option<RankHandle>,
    best: Option<Best>,
}

impl Worker<'_> {
    fn introduce(&mut self) -> Result<(), v1::Failure> {
        self.leave();
        self.link.message(Up::Scanned(v1::Scanned {
            fingerprint: self.manifest.fingerprint(),
            classes: self.manifest.classes.clone(),
            files: self.manifest.entries(),
            device: self.compute.name(),
            native_bf16: self.compute.native_bf16,
            gpu_uuid: self.compute.gpu_uuid.clone(),
            prepared: self.cache.is_some(),
            retained: self.retained(),
            best_epoch: self.best.as_ref().map(|best| best.epoch),
            warnings: self.warnings.to_vec(),
        }));
        Ok(())
    }

    fn retained(&self) -> Option<v1::Position> {
        self.replica.as_ref().map(|replica| replica.position)
    }

    fn prepare(&mut self, order: &v1::Prepare) -> Result<(), v1::Failure> {
        self.place.enter(v1::Phase::Preparing);
        let images = self.manifest.files.len();
        let size = i64::from(self.settings.image_size);
        // Too large for memory alone: a nameless file lets the kernel page it out.
        let too_large = order.cache_file.is_none()
            && available_memory()
                .is_some_and(|available| !fits_in_memory(bytes_needed(images, size), available));
        if too_large {
            let needed = bytes_needed(images, size) >> 20;
            tracing::warn!(
                "the decoded images take {needed} MiB, more than half of the free memory: they \
                 go to a file in {}, which is slower when it does not fit either",
                std::env::temp_dir().display()
            );
        }
        let own = too_large
            .then(tempfile::tempfile)
            .transpose()
            .map_err(environment)?;
        let own_path = own
            .as_ref()
            .map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let file = order
            .cache_file
            .as_deref()
            .map(Path::new)
            .or(own_path.as_deref());
        let cache = Cache::open(file, images, size).map_err(data_failure)?;
        let total = order.samples.len();
        let progress = |done: usize| {
            if done.is_multiple_of(PROGRESS_EVERY) || done == total {
                self.link
                    .message(Up::Preparing(v1::Preparing { done: done as u32 }));
            }
        };
        let bad = self
            .decode(&cache, &order.samples, progress)?
            .into_iter()
            .map(|bad| v1::BadFile {
                sample: bad.index,
                reason: bad.reason,
            })
            .collect();
        self.cache = Some(cache);
        self.link.message(Up::Prepared(v1::Prepared { bad }));
        Ok(())
    }

    fn train(&mut self, plan: &v1::EpochPlan) -> Result<(), v1::Failure> {
        let rank = match &self.rank_handle {
            Some(rank_handle) if rank_handle.generation == plan.generation => {
                rank_handle.group.rank()
            }
            // A plan of a group that this worker has left meanwhile.
            _ => return Ok(()),
        };
        let started = SystemTime::now();
        let made = self.make_epoch(plan);
        if let Some(spans) = self.spans {
            spans.send(trace::part(spans.trace(), plan, rank, started, &made));
        }
        if let Some(report) = made? {
            self.link.message(Up::EpochReport(report));
        }
        Ok(())
    }

    /// Trains and validates; nothing when an order comes between.
    fn make_epoch(&mut self, plan: &v1::EpochPlan) -> Result<Option<v1::EpochReport>, v1::Failure> {
        let labels = labels(&self.manifest);
        let epoch = epoch::Epoch {
            plan,
            labels: &labels,
            inbox: self.inbox,
            link: self.link,
            place: self.place,
            frozen: self.settings.frozen_batch_norm,
        };
        let (Some(rank_handle), Some(replica), Some(cache)) =
            (&mut self.rank_handle, &mut self.replica, &self.cache)
        else {
            return Ok(None);
        };
        let Some(trained) = epoch.train(rank_handle, replica, cache, &self.compute)? else {
            return Ok(None);
        };
        self.place.enter(v1::Phase::Validation);
        if !self.settings.frozen_batch_norm {
            replica.average_batch_norm(&rank_handle.group)?;
        }
        let started = std::time::Instant::now();
        let chunks = &plan.validation;
        let watched = (self.inbox, self.place);
        let validation = evaluate::chunks(replica, cache, &labels, chunks, &self.compute, watched)?;
        let Some(validation) = validation else {
            return Ok(None);
        };
        let mut phases = trained.phases;
        phases.validation = started.elapsed().as_secs_f64();
        Ok(Some(v1::EpochReport {
            generation: plan.generation,
            epoch: plan.epoch,
            loss_sum: replica.loss_sum,
            samples: trained.samples,
            validation,
            phases: Some(phases),
        }))
    }

    fn judge(&mut self, epoch_result: &v1::EpochResult) -> Result<(), v1::Failure> {
        let Some(replica) = &mut self.replica else {
            return Ok(());
        };
        if replica.position.epoch != epoch_result.epoch {
            return Ok(());
        }
        if epoch_result.improved {
            self.best = Some(Best::of(replica, epoch_result));
        }
        replica.next_epoch();
        Ok(())
    }

    /// Leaves the group; what a broken step has moved is put back.
    fn leave(&mut self) {
        self.rank_handle = None;
        if let Some(replica) = &mut self.replica {
            replica.undo_step();
        }
    }

    fn abort_generation(
        &mut self,
        abort_generation: &v1::AbortGeneration,
    ) -> Result<(), v1::Failure> {
        self.leave();
        self.link
            .message(Up::GenerationAborted(v1::GenerationAborted {
                generation: abort_generation.generation,
                retained: self.retained(),
            }));
        Ok(())
    }
}

fn labels(manifest: &Manifest) -> Arc<[u32]> {
    manifest.files.iter().map(|file| file.label).collect()
}
