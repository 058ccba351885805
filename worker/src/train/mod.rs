//! The training thread: it owns every tensor and does what the inbox says, one order at a time.
//!
//! ```text
//! scan ─▶ Prepare ─▶ Assign ─▶ ( Plan ─▶ Verdict )* ─▶ Finish ─▶ Shutdown
//! ```

pub mod optimizer;

mod device;
mod epoch;
mod evaluate;
mod failure;
mod group;
mod predict;

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::v1;
use v1::worker_message::Message as Up;

use crate::control::{Inbox, Link, Order, Outgoing};
use crate::data::{Cache, Manifest, available_memory, bytes_needed, demo, fits_in_memory};
use device::Compute;
use failure::{data_failure, environment, internal};
use group::Rank;

/// The share of decoded images between two reports of progress.
const PROGRESS_EVERY: usize = 32;

/// Trains as the orders in `inbox` say, until one of them ends it.
///
/// # Errors
/// What the coordinator is to be told when this worker cannot go on.
pub fn run(
    settings: &v1::Settings,
    address: IpAddr,
    inbox: &Inbox,
    link: &Link,
) -> Result<(), v1::Failure> {
    let compute = device::choose(settings)?;
    let mut worker = Worker::scan(settings, compute, address, inbox, link)?;
    loop {
        match inbox.next() {
            Order::Prepare(order) => worker.prepare(&order)?,
            Order::Assign(order) => worker.form(&order)?,
            Order::Plan(plan) => worker.train(&plan)?,
            Order::Verdict(verdict) => worker.judge(&verdict)?,
            Order::Finish(finish) => worker.finish(&finish)?,
            Order::Shutdown(_) => return Ok(()),
        }
    }
}

struct Worker<'a> {
    settings: &'a v1::Settings,
    inbox: &'a Inbox,
    link: &'a Link,
    compute: Compute,
    /// Where this machine is reached by its peers.
    address: IpAddr,
    manifest: Manifest,
    cache: Option<Cache>,
    rank: Option<Rank>,
}

impl<'a> Worker<'a> {
    fn scan(
        settings: &'a v1::Settings,
        compute: Compute,
        address: IpAddr,
        inbox: &'a Inbox,
        link: &'a Link,
    ) -> Result<Self, v1::Failure> {
        let root = if settings.data == "demo" {
            demo::ensure(Path::new("data/demo")).map_err(data_failure)?
        } else {
            settings.data.clone().into()
        };
        let limit = (settings.limit_per_class > 0).then_some(settings.limit_per_class as usize);
        let manifest = Manifest::scan(&root, limit).map_err(data_failure)?;
        let files = manifest.files.iter();
        link.message(Up::Scanned(v1::Scanned {
            fingerprint: manifest.fingerprint(),
            classes: manifest.classes.clone(),
            files: files
                .map(|f| v1::FileEntry {
                    path: f.path.clone(),
                    size: f.size,
                })
                .collect(),
            device: compute.name(),
            bf16_in_silicon: compute.bf16_in_silicon,
        }));
        Ok(Self {
            settings,
            inbox,
            link,
            compute,
            address,
            manifest,
            cache: None,
            rank: None,
        })
    }

    fn prepare(&mut self, order: &v1::Prepare) -> Result<(), v1::Failure> {
        let images = self.manifest.files.len();
        let size = i64::from(self.settings.image_size);
        // Too large for memory alone: a nameless file lets the kernel page it out.
        let too_large = order.cache_file.is_none()
            && available_memory()
                .is_some_and(|available| !fits_in_memory(bytes_needed(images, size), available));
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
        let threads = self.compute.threads;
        let total = order.samples.len();
        let progress = |done: usize| {
            if done.is_multiple_of(PROGRESS_EVERY) || done == total {
                self.link
                    .message(Up::Preparing(v1::Preparing { done: done as u32 }));
            }
        };
        let bad = cache
            .fill(&self.manifest, &order.samples, threads, progress)
            .map_err(data_failure)?
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

    fn form(&mut self, order: &v1::Assignment) -> Result<(), v1::Failure> {
        let classes = self.manifest.classes.len() as i64;
        let rank = Rank::form(
            order,
            self.settings,
            &self.compute,
            classes,
            self.address,
            self.link,
        )?;
        self.link.message(Up::GroupReady(v1::GroupReady {
            generation: order.generation,
        }));
        self.rank = Some(rank);
        Ok(())
    }

    fn train(&mut self, plan: &v1::EpochPlan) -> Result<(), v1::Failure> {
        let labels = labels(&self.manifest);
        let epoch = epoch::Epoch {
            plan,
            labels: &labels,
            inbox: self.inbox,
            link: self.link,
        };
        let (frozen, compute) = (self.settings.frozen_batch_norm, &self.compute.clone());
        let (rank, cache) = self.ready()?;
        let Some(trained) = epoch.train(rank, cache, compute, frozen)? else {
            return Ok(());
        };
        if !frozen {
            rank.average_batch_norm()?;
        }
        let started = std::time::Instant::now();
        let validation = evaluate::chunks(rank, cache, &labels, &plan.validation, compute)?;
        let mut phases = trained.phases;
        phases.validation = started.elapsed().as_secs_f64();
        self.link.message(Up::EpochReport(v1::EpochReport {
            generation: plan.generation,
            epoch: plan.epoch,
            loss_sum: trained.loss_sum,
            samples: trained.samples,
            validation,
            phases: Some(phases),
        }));
        Ok(())
    }

    fn judge(&mut self, verdict: &v1::Verdict) -> Result<(), v1::Failure> {
        if !verdict.improved {
            return Ok(());
        }
        let size = self.settings.image_size;
        let classes = self.manifest.classes.clone();
        let (rank, _) = self.ready()?;
        if rank.index != 0 {
            return Ok(());
        }
        let bytes = rank.keep_best(verdict, &classes, size)?;
        self.link.send(Outgoing::Upload {
            kind: v1::BlobKind::BestState,
            generation: verdict.generation,
            epoch: verdict.epoch,
            bytes,
        });
        Ok(())
    }

    fn finish(&mut self, finish: &v1::Finish) -> Result<(), v1::Failure> {
        let compute = self.compute.clone();
        let (rank, cache) = self.ready()?;
        if rank.index == 0
            && !finish.show.is_empty()
            && let Some(epoch) = rank.restore_best()?
        {
            let bytes = predict::show(rank, cache, &finish.show, &compute)?;
            self.link.send(Outgoing::Upload {
                kind: v1::BlobKind::Predictions,
                generation: finish.generation,
                epoch,
                bytes,
            });
        }
        self.link.message(Up::Finished(v1::Finished {
            generation: finish.generation,
        }));
        Ok(())
    }

    fn ready(&mut self) -> Result<(&mut Rank, &Cache), v1::Failure> {
        match (&mut self.rank, &self.cache) {
            (Some(rank), Some(cache)) => Ok((rank, cache)),
            _ => Err(internal(
                "the coordinator gave work before data and group were ready",
            )),
        }
    }
}

fn labels(manifest: &Manifest) -> Arc<[u32]> {
    manifest.files.iter().map(|file| file.label).collect()
}
