//! Keeps the decoded images in the memory of the GPU, where they fit.

use worker_control::TrainError;

use super::Worker;
use super::failure::{device, internal};
use worker_data::{Resident, bytes_needed, fits_in_memory};

/// Where the decoded images are read from.
#[derive(Debug, Default)]
pub(super) enum Residence {
    /// To be decided before the first epoch that trains on them.
    #[default]
    Undecided,
    /// The cache of decoded images.
    Cpu,
    Gpu(Resident),
}

impl Worker<'_> {
    /// Copies the images to the GPU before the first epoch that trains on them. By then all
    /// workers that share the cache have decoded their parts.
    pub(super) fn choose_residence(&mut self) -> Result<(), TrainError> {
        let (Some(cache), Residence::Undecided) = (&self.cache, &self.residence) else {
            return Ok(());
        };
        self.residence = Residence::Cpu;
        let Some(gpu) = self.compute.gpu() else {
            return Ok(());
        };
        let needed = bytes_needed(cache.images(), cache.size());
        let free = c10d::cuda::free_memory(gpu).map_err(device)?;
        let (needed_mib, free_mib) = (needed >> 20, free >> 20);
        if !fits_in_memory(needed, free) {
            tracing::info!(
                needed_mib,
                free_mib,
                "the images stay in the memory of the CPU: they take more than half of what is \
                 free on the GPU"
            );
            return Ok(());
        }
        let resident = Resident::new(cache, &self.labels, self.compute.device).map_err(internal)?;
        tracing::info!(
            needed_mib,
            free_mib,
            "the images are in the memory of the GPU"
        );
        self.residence = Residence::Gpu(resident);
        Ok(())
    }
}
