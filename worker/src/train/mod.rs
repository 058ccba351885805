//! The training thread: it owns every tensor and does what the inbox says, one order at a time.
//!
//! ```text
//! Introduce ─▶ Prepare ─▶ Assign ─▶ ( Plan ─▶ Verdict )* ─▶ Finish ─▶ Shutdown
//!                           ▲             │ a peer or the coordinator is gone
//!                           └──── Halt ◀──┘
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
mod group;
mod predict;
mod replica;

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::v1;
use v1::worker_message::Message as Up;

use crate::control::{Inbox, Link, Order, Outgoing};
use crate::data::{Cache, Manifest, available_memory, bytes_needed, demo, fits_in_memory};
use crate::whereabouts::Whereabouts;
use best::Best;
use device::Compute;
use failure::{collective, data_failure, environment, internal};
use group::Seat;
use replica::Replica;

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
    place: &Whereabouts,
) -> Result<(), v1::Failure> {
    let compute = device::choose(settings)?;
    let mut worker = Worker {
        manifest: scan(settings)?,
        settings,
        inbox,
        link,
        place,
        compute,
        address,
        cache: None,
        replica: None,
        seat: None,
        best: None,
    };
    loop {
        place.enter(v1::Phase::Unspecified);
        let order = inbox.next();
        let done = match &order {
            Order::Introduce => worker.introduce(),
            Order::Prepare(order) => worker.prepare(order),
            Order::Assign(order) => worker.form(order),
            Order::Plan(plan) => worker.train(plan),
            Order::Verdict(verdict) => worker.judge(verdict),
            Order::Halt(halt) => worker.halt(halt),
            Order::Keep(keep) => worker.keep(keep),
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

fn scan(settings: &v1::Settings) -> Result<Manifest, v1::Failure> {
    let root = if settings.data == "demo" {
        demo::ensure(Path::new("data/demo")).map_err(data_failure)?
    } else {
        settings.data.clone().into()
    };
    let limit = (settings.limit_per_class > 0).then_some(settings.limit_per_class as usize);
    Manifest::scan(&root, limit).map_err(data_failure)
}

struct Worker<'a> {
    settings: &'a v1::Settings,
    inbox: &'a Inbox,
    link: &'a Link,
    place: &'a Whereabouts,
    compute: Compute,
    /// Where this machine is reached by its peers.
    address: IpAddr,
    manifest: Manifest,
    cache: Option<Cache>,
    replica: Option<Replica>,
    seat: Option<Seat>,
    best: Option<Best>,
}

impl Worker<'_> {
    fn introduce(&mut self) -> Result<(), v1::Failure> {
        self.leave();
        let files = self.manifest.files.iter();
        self.link.message(Up::Scanned(v1::Scanned {
            fingerprint: self.manifest.fingerprint(),
            classes: self.manifest.classes.clone(),
            files: files
                .map(|f| v1::FileEntry {
                    path: f.path.clone(),
                    size: f.size,
                })
                .collect(),
            device: self.compute.name(),
            bf16_in_silicon: self.compute.bf16_in_silicon,
            gpu_uuid: self.compute.gpu_uuid.clone(),
            prepared: self.cache.is_some(),
            held: self.held(),
            best_epoch: self.best.as_ref().map(|best| best.epoch),
        }));
        Ok(())
    }

    fn held(&self) -> Option<v1::Position> {
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
        self.leave();
        self.place.enter(v1::Phase::Forming);
        let position = order.position.unwrap_or_default();
        self.place.at(order.generation, position);
        let group = group::meet(order, self.settings, &self.compute, self.address, self.link)?;
        // A state that was there before stays until all of the common one has arrived.
        let before = self.replica.take();
        let whole = before.is_some() && order.origin() != v1::Origin::Fresh;
        let mut replica = match before {
            Some(replica) if whole => replica,
            _ => Replica::new(
                self.settings,
                self.manifest.classes.len() as i64,
                self.compute.device,
            ),
        };
        replica.compute_in(order.precision());
        let result = self.fill(&mut replica, order, &group);
        if result.is_ok() || whole {
            self.replica = Some(replica);
        }
        result?;
        let (Some(replica), device) = (&self.replica, self.compute.device) else {
            return Err(internal("a group without a state"));
        };
        if replica.position != position {
            return Err(internal(format!(
                "the state is at step {} of epoch {}, not at step {} of epoch {}",
                replica.position.completed,
                replica.position.epoch,
                position.completed,
                position.epoch
            )));
        }
        self.seat = Some(Seat::take(order, group, replica, device)?);
        self.link.message(Up::GroupReady(v1::GroupReady {
            generation: order.generation,
        }));
        Ok(())
    }

    /// Gives the replica the state that the generation begins with.
    fn fill(
        &self,
        replica: &mut Replica,
        order: &v1::Assignment,
        group: &c10d::ProcessGroup,
    ) -> Result<(), v1::Failure> {
        if order.rank == order.source {
            match order.origin() {
                v1::Origin::Checkpoint => {
                    let request = v1::DownloadRequest {
                        kind: v1::BlobKind::Checkpoint.into(),
                        position: order.position,
                        ..Default::default()
                    };
                    replica.load_checkpoint(&self.fetch(request)?)?;
                }
                v1::Origin::Fresh => {
                    if let Some(path) = self.settings.pretrained.as_deref() {
                        replica.load_pretrained(path)?;
                    }
                }
                v1::Origin::Held | v1::Origin::Unspecified => {}
            }
            // The coordinator knows an epoch whose verdict has not reached this worker.
            if order
                .position
                .is_some_and(|at| at.epoch > replica.position.epoch)
            {
                replica.next_epoch();
            }
        }
        replica.share(group, order.source)
    }

    fn fetch(&self, request: v1::DownloadRequest) -> Result<Vec<u8>, v1::Failure> {
        let (reply, answer) = std::sync::mpsc::channel();
        self.link.send(Outgoing::Fetch { request, reply });
        match answer.recv() {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(message)) => Err(collective(message)),
            Err(_) => Err(collective("the session broke during a download")),
        }
    }

    fn train(&mut self, plan: &v1::EpochPlan) -> Result<(), v1::Failure> {
        let labels = labels(&self.manifest);
        let epoch = epoch::Epoch {
            plan,
            labels: &labels,
            inbox: self.inbox,
            link: self.link,
            place: self.place,
            frozen: self.settings.frozen_batch_norm,
        };
        let (Some(seat), Some(replica), Some(cache)) =
            (&mut self.seat, &mut self.replica, &self.cache)
        else {
            // A plan of a group that this worker has left meanwhile.
            return Ok(());
        };
        if seat.generation != plan.generation {
            return Ok(());
        }
        let Some(trained) = epoch.train(seat, replica, cache, &self.compute)? else {
            return Ok(());
        };
        self.place.enter(v1::Phase::Validation);
        if !self.settings.frozen_batch_norm {
            replica.average_batch_norm(&seat.group)?;
        }
        let started = std::time::Instant::now();
        let chunks = &plan.validation;
        let watched = (self.inbox, self.place);
        let validation = evaluate::chunks(replica, cache, &labels, chunks, &self.compute, watched)?;
        let Some(validation) = validation else {
            return Ok(());
        };
        let mut phases = trained.phases;
        phases.validation = started.elapsed().as_secs_f64();
        self.link.message(Up::EpochReport(v1::EpochReport {
            generation: plan.generation,
            epoch: plan.epoch,
            loss_sum: replica.loss_sum,
            samples: trained.samples,
            validation,
            phases: Some(phases),
        }));
        Ok(())
    }

    fn judge(&mut self, verdict: &v1::Verdict) -> Result<(), v1::Failure> {
        let Some(replica) = &mut self.replica else {
            return Ok(());
        };
        if replica.position.epoch != verdict.epoch {
            return Ok(());
        }
        if verdict.improved {
            self.best = Some(Best::of(replica, verdict));
        }
        replica.next_epoch();
        Ok(())
    }

    fn keep(&mut self, keep: &v1::Keep) -> Result<(), v1::Failure> {
        match (keep.what, &self.best, &self.replica) {
            (Some(v1::keep::What::Best(epoch)), Some(best), _) if best.epoch == epoch => {
                self.link.send(Outgoing::Upload {
                    label: v1::BlobHeader {
                        kind: v1::BlobKind::BestState.into(),
                        epoch,
                        ..Default::default()
                    },
                    bytes: best.to_file(&self.manifest.classes, self.settings.image_size)?,
                });
                Ok(())
            }
            (Some(v1::keep::What::Checkpoint(_)), _, Some(replica)) => {
                epoch::checkpoint(replica, self.link)
            }
            _ => Err(internal("asked for a state that this worker does not hold")),
        }
    }

    /// Leaves the group; what a broken step has moved is put back.
    fn leave(&mut self) {
        self.seat = None;
        if let Some(replica) = &mut self.replica {
            replica.undo_step();
        }
    }

    fn halt(&mut self, halt: &v1::Halt) -> Result<(), v1::Failure> {
        self.leave();
        self.link.message(Up::Halted(v1::Halted {
            generation: halt.generation,
            held: self.held(),
        }));
        Ok(())
    }

    fn finish(&mut self, finish: &v1::Finish) -> Result<(), v1::Failure> {
        if !finish.show.is_empty()
            && let Err(failure) = self.show(&finish.show)
        {
            // A run without its last picture is still a run.
            tracing::warn!(reason = failure.message, "no picture of predictions");
        }
        self.link.message(Up::Finished(v1::Finished {
            generation: finish.generation,
        }));
        Ok(())
    }

    fn show(&mut self, samples: &[u32]) -> Result<(), v1::Failure> {
        let file = self.fetch(v1::DownloadRequest {
            kind: v1::BlobKind::BestState.into(),
            ..Default::default()
        })?;
        let (Some(replica), Some(cache)) = (&mut self.replica, &self.cache) else {
            return Err(internal("there is no model to show it with"));
        };
        best::load(&mut replica.model, &file)?;
        let bytes = predict::show(replica, cache, samples, &self.compute)?;
        self.link.send(Outgoing::Upload {
            label: v1::BlobHeader {
                kind: v1::BlobKind::Predictions.into(),
                ..Default::default()
            },
            bytes,
        });
        Ok(())
    }
}

fn labels(manifest: &Manifest) -> Arc<[u32]> {
    manifest.files.iter().map(|file| file.label).collect()
}
