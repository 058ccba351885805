//! The decoded set in the memory of a device, which gathers and normalises there: no image travels
//! to it twice.

use tch::{Device, Kind, Tensor};

use super::cache::in_range;
use super::{Batch, Cache, DataError, Normaliser};

/// The images and labels of a [`Cache`], on a device.
#[derive(Debug)]
pub struct Resident {
    /// uint8 `[N, S, S, 3]`.
    pixels: Tensor,
    /// int64 `[N]`.
    labels: Tensor,
    images: usize,
    size: i64,
}

impl Resident {
    /// Copies all images that are decoded. `labels` holds the class of each, by index.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(cache: &Cache, labels: &[u32], device: Device) -> Result<Self, DataError> {
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        Ok(Self {
            images: cache.images().min(labels.len()),
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
            pixels: cache.pixels().f_to_device(device)?,
            size: cache.size(),
        })
    }

    /// The batches of these lists of indices, as [`Loader`](super::Loader) would load them.
    ///
    /// # Errors
    /// On an index that is out of range, or when the device has no memory left.
    pub fn batches(&self, batches: Vec<Vec<u32>>, kind: Kind) -> Result<Gather, DataError> {
        let device = self.pixels.device();
        let mut order = Vec::new();
        for batch in &batches {
            in_range(batch, self.images)?;
            order.extend(batch.iter().map(|&index| i64::from(index)));
        }
        Ok(Gather {
            pixels: self.pixels.shallow_clone(),
            labels: self.labels.shallow_clone(),
            normaliser: Normaliser::new(self.size, device, kind)?,
            order: Tensor::f_from_slice(&order)?.f_to_device(device)?,
            counts: batches.iter().map(Vec::len).collect::<Vec<_>>().into_iter(),
            next: 0,
        })
    }
}

/// An iterator over batches that are gathered on the device.
#[derive(Debug)]
pub struct Gather {
    pixels: Tensor,
    labels: Tensor,
    normaliser: Normaliser,
    /// The indices of all batches, one after the other: int64, on the device.
    order: Tensor,
    counts: std::vec::IntoIter<usize>,
    /// Where the next batch begins in `order`.
    next: i64,
}

impl Gather {
    fn gather(&mut self, count: i64) -> Result<Batch, DataError> {
        let indices = self.order.f_narrow(0, self.next, count)?;
        self.next += count;
        Ok(Batch {
            images: (self.normaliser).apply(&self.pixels.f_index_select(0, &indices)?)?,
            labels: self.labels.f_index_select(0, &indices)?,
        })
    }
}

impl Iterator for Gather {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = self.counts.next()?;
        Some(self.gather(count as i64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Loader;

    #[test]
    fn gives_the_batches_of_the_loader() {
        let cache = Cache::open(None, 5, 4).unwrap();
        let noise = (Tensor::arange(240, (Kind::Int64, Device::Cpu)) * 37).fmod(256);
        let mut pixels = cache.pixels().shallow_clone();
        pixels.copy_(&noise.to_kind(Kind::Uint8).view_as(&pixels));
        let labels = [3, 1, 4, 1, 5];
        let batches = vec![vec![4, 0], vec![], vec![1, 1, 2], vec![3]];
        for kind in [Kind::Float, Kind::BFloat16] {
            let resident = Resident::new(&cache, &labels, Device::Cpu).unwrap();
            let gathered = resident.batches(batches.clone(), kind).unwrap();
            let loader = Loader::new(
                cache.share(),
                Arc::from(labels),
                batches.clone(),
                Device::Cpu,
                kind,
            );
            let loaded: Vec<_> = loader.unwrap().map(|batch| batch.unwrap()).collect();
            let gathered: Vec<_> = gathered.map(|batch| batch.unwrap()).collect();
            assert_eq!(gathered.len(), loaded.len());
            for (gathered, loaded) in gathered.iter().zip(&loaded) {
                assert_eq!(gathered.images, loaded.images);
                assert_eq!(gathered.images.stride(), loaded.images.stride());
                assert_eq!(gathered.labels, loaded.labels);
            }
        }
    }

    #[test]
    fn an_index_without_image_is_refused_before_the_first_batch() {
        let cache = Cache::open(None, 2, 4).unwrap();
        let resident = Resident::new(&cache, &[0, 1], Device::Cpu).unwrap();
        let refused = resident.batches(vec![vec![0], vec![2]], Kind::Float);
        assert!(matches!(
            refused.unwrap_err(),
            DataError::IndexOutOfRange {
                index: 2,
                images: 2
            }
        ));
    }
}
