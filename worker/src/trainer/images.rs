//! Decodes the images that this worker was ordered to, and first downloads the missing ones from
//! the coordinator.

use std::sync::mpsc::Receiver;

use worker_control::TrainError;

use super::Worker;
use super::failure::{collective, data_failure};
use super::link::{FetchError, Outgoing, Wanted};
use super::setup::Images;
use worker_data::{BadFile, Cache};

/// Images in one request. While one batch is decoded, the next is downloaded.
const BATCH: usize = 256;

impl Worker<'_> {
    /// Fills the cache; `progress` is called with the number of images done.
    pub(super) fn decode(
        &self,
        cache: &Cache,
        samples: &[u32],
        progress: impl Fn(usize) + Sync,
    ) -> Result<Vec<BadFile>, TrainError> {
        let decode = |samples: &[u32], before: usize| {
            let progress = |done| progress(before + done);
            cache
                .fill(&self.manifest, samples, self.compute.threads, progress)
                .map_err(data_failure)
        };
        if !matches!(self.setup.images, Images::Coordinator(_)) {
            return decode(samples, 0);
        }
        let (mut bad, mut done, mut coming) = (Vec::new(), 0, None);
        for batch in samples.chunks(BATCH).map(Some).chain([None]) {
            let next = batch.map(|batch| (batch, self.get(batch)));
            if let Some((batch, answer)) = std::mem::replace(&mut coming, next) {
                arrived(answer)?;
                bad.extend(decode(batch, done)?);
                done += batch.len();
            }
        }
        Ok(bad)
    }

    /// Requests those of `samples` that are not on this machine.
    fn get(&self, samples: &[u32]) -> Option<Receiver<Result<(), FetchError>>> {
        let missing = samples.iter().filter_map(|&sample| {
            let size = self.manifest.files.get(sample as usize)?.size;
            let path = self.manifest.location(sample)?;
            let here = std::fs::metadata(&path).is_ok_and(|found| found.len() == size);
            (!here).then_some(Wanted { sample, path, size })
        });
        let wanted: Vec<Wanted> = missing.collect();
        if wanted.is_empty() {
            return None;
        }
        let (reply, answer) = std::sync::mpsc::channel();
        self.link.send(Outgoing::Images { wanted, reply });
        Some(answer)
    }
}

fn arrived(answer: Option<Receiver<Result<(), FetchError>>>) -> Result<(), TrainError> {
    let Some(answer) = answer else {
        return Ok(());
    };
    match answer.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(FetchError::Refused(message))) => Err(data_failure(message)),
        // Not an error of the data: the next session orders the images again.
        Ok(Err(FetchError::Broken(message))) => Err(collective(message)),
        Err(_) => Err(collective("the session broke while images were fetched")),
    }
}
