//! Makes the cache of decoded images.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use worker_control::{Activity, BadFile, Prepare, TrainError};

use super::Worker;
use super::failure::{collective, data_failure, environment};
use super::link::Outgoing;
use super::resident::Residence;
use worker_data::{Cache, available_memory, bytes_needed, fits_in_memory};

/// Decoded images between two reports of progress.
const PROGRESS_EVERY: usize = 32;

impl Worker<'_> {
    /// Decodes; returns the files that cannot be.
    pub(super) fn prepare(&mut self, order: &Prepare) -> Result<Vec<BadFile>, TrainError> {
        self.activity.enter(Activity::Preparing);
        self.compute.use_threads(order.threads);
        let images = self.manifest.files.len();
        let size = i64::from(self.settings.image_size);
        // Too large for memory alone: the kernel can page out an unnamed file.
        let too_large = order.cache_file.is_none()
            && available_memory()
                .is_some_and(|available| !fits_in_memory(bytes_needed(images, size), available));
        if too_large {
            let needed = bytes_needed(images, size) >> 20;
            tracing::warn!(
                "the decoded images take {needed} MiB, more than half of the free memory: they \
                 are kept in a file in {}, which is slower if it does not fit into memory either",
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
        let file = order.cache_file.as_deref().or(own_path.as_deref());
        let cache = Cache::open(file, images, size).map_err(|error| match &order.cache_file {
            // It lives as long as its coordinator. The next coordinator has another.
            Some(shared) if !shared.exists() => {
                collective("the coordinator that shares its image cache has exited")
            }
            _ => data_failure(error),
        })?;
        let total = order.samples.len();
        let progress = |done: usize| {
            if done.is_multiple_of(PROGRESS_EVERY) || done == total {
                self.link.send(Outgoing::Preparing(done as u32));
            }
        };
        let bad = self.decode(&cache, &order.samples, progress)?;
        self.cache = Some(cache);
        self.residence = Residence::Undecided;
        let bad = bad.into_iter().map(|bad| BadFile {
            sample: bad.index,
            reason: bad.reason,
        });
        Ok(bad.collect())
    }
}
