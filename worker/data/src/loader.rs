//! Batches ahead of time: a thread of its own gathers and normalises while the training
//! thread computes. The order of the batches is the caller's; nothing is shuffled here.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use tch::{Device, Kind, Tensor};

use super::{Batch, Cache, DataError, Normaliser};

/// Batches that are loaded ahead: two hide the gathering, more only take memory.
const DEPTH: usize = 2;

/// An iterator over the batches. How long `next` blocks is how long training waits for data.
/// Dropping it early ends its thread.
#[derive(Debug)]
pub struct Loader {
    /// `None` only while the loader is being dropped.
    ready: Option<Receiver<Result<Batch, DataError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts gathering `batches`, each a list of manifest indices, from `cache`. `labels`
    /// holds the class of every image of the manifest, by index.
    ///
    /// # Errors
    /// When the thread cannot be started, or the device has no memory left. An index outside the
    /// cache or the labels is the error of its batch, which is the last one then.
    pub fn new(
        cache: Cache,
        labels: Arc<[u32]>,
        batches: Vec<Vec<u32>>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, DataError> {
        let normaliser = Normaliser::new(cache.size(), device, kind)?;
        let (sender, ready) = mpsc::sync_channel(DEPTH);
        let thread = thread::Builder::new()
            .name("loader".into())
            .spawn(move || {
                for indices in batches {
                    let batch = assemble(&cache, &labels, &indices, &normaliser);
                    let failed = batch.is_err();
                    // A send fails once the loader is dropped.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            })
            .map_err(|error| DataError::Threads {
                threads: 1,
                reason: error.to_string(),
            })?;
        Ok(Self {
            ready: Some(ready),
            thread: Some(thread),
        })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ready.as_ref()?.recv().ok()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails; then it is waited for, so that
        // no batch outlives the loader on the device.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn assemble(
    cache: &Cache,
    labels: &[u32],
    indices: &[u32],
    normaliser: &Normaliser,
) -> Result<Batch, DataError> {
    let images = normaliser.apply(&cache.batch(indices)?)?;
    let labels = indices
        .iter()
        .map(|&index| {
            labels
                .get(index as usize)
                .copied()
                .map(i64::from)
                .ok_or(index)
        })
        .collect::<Result<Vec<i64>, u32>>()
        .map_err(|index| DataError::IndexOutOfRange {
            index,
            images: labels.len(),
        })?;
    Ok(Batch {
        labels: Tensor::f_from_slice(&labels)?.f_to_device(images.device())?,
        images,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(batches: Vec<Vec<u32>>) -> Loader {
        let cache = Cache::open(None, 4, 2).unwrap();
        Loader::new(
            cache,
            Arc::from([0, 1, 2, 3]),
            batches,
            Device::Cpu,
            Kind::Float,
        )
        .unwrap()
    }

    #[test]
    fn keeps_the_order_allows_an_empty_batch_and_ends() {
        let batches: Vec<_> = loader(vec![vec![3, 0], vec![], vec![1, 1, 2]])
            .map(|batch| batch.unwrap())
            .map(|batch| {
                (
                    batch.images.size(),
                    Vec::<i64>::try_from(batch.labels).unwrap(),
                )
            })
            .collect();
        assert_eq!(
            batches,
            [
                (vec![2, 3, 2, 2], vec![3, 0]),
                (vec![0, 3, 2, 2], vec![]),
                (vec![3, 3, 2, 2], vec![1, 1, 2]),
            ]
        );
    }

    #[test]
    fn an_index_without_image_is_the_last_answer() {
        let mut loader = loader(vec![vec![0], vec![4], vec![1]]);
        assert!(loader.next().unwrap().is_ok());
        let error = loader.next().unwrap().unwrap_err();
        assert!(matches!(
            error,
            DataError::IndexOutOfRange {
                index: 4,
                images: 4
            }
        ));
        assert!(loader.next().is_none());
    }

    #[test]
    fn dropped_early_it_joins_its_thread() {
        let mut loader = loader(vec![vec![0]; 10_000]);
        assert!(loader.next().unwrap().is_ok());
        // Would hang here if the thread kept sending.
        drop(loader);
    }
}
