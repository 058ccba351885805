//! Which samples form which step, and which rank takes which of them.
//!
//! The order of an epoch is a function of seed and epoch alone, so the samples of a step do
//! not depend on the world size.

use super::random::SplitMix64;

const EPOCH_STREAM: u64 = 0x6570_6f63_6873;

/// One rank's share of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// Samples of all steps, one after the other.
    pub samples: Vec<u32>,
    /// How many of them each step takes; 0 where the ragged last batch has none for the rank.
    pub local_counts: Vec<u32>,
    /// The size of each step's batch over all ranks.
    pub global_counts: Vec<u32>,
}

/// A part of the validation set that one rank evaluates alone, so that the sums over chunks
/// do not depend on who took which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the validation set.
    pub index: u32,
    /// Its samples.
    pub samples: Vec<u32>,
}

/// The global order of one epoch.
pub fn epoch_order(train: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
    let mut order = train.to_vec();
    SplitMix64::keyed(&[seed, EPOCH_STREAM, epoch.into()]).shuffle(&mut order);
    order
}

/// Cuts `order` into steps of `global_batch` and gives each rank a contiguous slice of each.
pub fn shard(order: &[u32], global_batch: usize, rank: usize, world_size: usize) -> Shard {
    let mut shard = Shard::default();
    for batch in order.chunks(global_batch) {
        let slice = slice_of(batch, rank, world_size);
        shard.samples.extend_from_slice(slice);
        shard.local_counts.push(slice.len() as u32);
        shard.global_counts.push(batch.len() as u32);
    }
    shard
}

/// Cuts the validation set into chunks of `chunk_size` and gives a rank its contiguous share.
pub fn validation_chunks(
    validation: &[u32],
    chunk_size: usize,
    rank: usize,
    world_size: usize,
) -> Vec<Chunk> {
    let chunks: Vec<Chunk> = validation
        .chunks(chunk_size)
        .enumerate()
        .map(|(index, samples)| Chunk {
            index: index as u32,
            samples: samples.to_vec(),
        })
        .collect();
    slice_of(&chunks, rank, world_size).to_vec()
}

/// Contiguous slices that differ by at most one in length and together are all of `items`.
pub fn slice_of<T>(items: &[T], rank: usize, world_size: usize) -> &[T] {
    let start = items.len() * rank / world_size;
    let end = items.len() * (rank + 1) / world_size;
    &items[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Split;
    use proptest::prelude::*;

    fn step_samples(shards: &[Shard], step: usize) -> Vec<u32> {
        shards
            .iter()
            .flat_map(|shard| {
                let start: u32 = shard.local_counts[..step].iter().sum();
                let end = start + shard.local_counts[step];
                shard.samples[start as usize..end as usize].to_vec()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_sample_once_and_steps_do_not_depend_on_the_world(
            n in 2usize..400, batch in 1usize..70, world in 1usize..9, seed: u64, epoch in 1u32..50,
        ) {
            let train: Vec<u32> = (0..n as u32).collect();
            let order = epoch_order(&train, seed, epoch);
            let shards: Vec<Shard> = (0..world).map(|r| shard(&order, batch, r, world)).collect();
            let mut seen = Vec::new();
            for (step, expected) in order.chunks(batch).enumerate() {
                let samples = step_samples(&shards, step);
                prop_assert_eq!(&samples, expected);
                prop_assert!(shards.iter().all(|s| s.global_counts[step] == expected.len() as u32));
                seen.extend(samples);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, train);
        }

        #[test]
        fn validation_is_complete_for_any_world(n in 1usize..500, size in 1usize..80, world in 1usize..9) {
            let validation: Vec<u32> = (0..n as u32).collect();
            let all: Vec<Chunk> = (0..world)
                .flat_map(|rank| validation_chunks(&validation, size, rank, world))
                .collect();
            prop_assert_eq!(&all, &validation_chunks(&validation, size, 0, 1));
            let samples: Vec<u32> = all.into_iter().flat_map(|chunk| chunk.samples).collect();
            prop_assert_eq!(samples, validation);
        }

        #[test]
        fn split_partitions(n in 2u32..500, fraction in 0.01f64..0.99, seed: u64) {
            let samples: Vec<u32> = (0..n).collect();
            let split = Split::new(&samples, fraction, seed).unwrap();
            prop_assert!(!split.train.is_empty() && !split.validation.is_empty());
            let mut all = [split.train.clone(), split.validation.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, samples.clone());
            prop_assert_eq!(Split::new(&samples, fraction, seed).unwrap(), split);
        }
    }
}
