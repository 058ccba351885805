//! The scenario of a seed: the recipe, the data, and the faults.

use std::time::Duration;

use super::lineage::Reference;
use crate::Recipe;
use crate::early_stopping::Rule;
use crate::event::Position;
use crate::random::SplitMix64;
use crate::run::{Cadence, Precision};
use crate::schedule::{Decay, Schedule};

pub(super) struct Scenario {
    pub(super) recipe: Recipe,
    pub(super) files: Vec<(String, u64)>,
    /// Files that do not decode.
    pub(super) bad: Vec<u32>,
    pub(super) reference: Reference,
    /// Ranks average their statistics at the end of an epoch, which is one more collective.
    pub(super) averages: bool,
    /// Devices return the results of steps and chunks after more were begun.
    pub(super) results_come_late: bool,
    /// Old messages are delivered again throughout.
    pub(super) redelivers: bool,
    /// Numbers of the events before which a fault is injected.
    pub(super) faults: Vec<u64>,
}

impl Scenario {
    pub(super) fn new(seed: u64, quiet: bool) -> Self {
        let mut random = SplitMix64::keyed(&[seed, 0x5363_656e]);
        let mut between = |low: u64, high: u64| low + random.below(high - low + 1);
        let workers = between(1, 4) as usize;
        let max_workers = workers + between(0, 2) as usize;
        let recipe = Recipe {
            workers,
            local_ranks: if between(0, 2) > 0 { workers as u32 } else { 0 },
            min_workers: if between(0, 2) > 0 {
                1
            } else {
                between(1, workers as u64) as usize
            },
            max_workers,
            rejoin_timeout: Duration::from_millis(between(1, 6_000)),
            max_restarts: between(1, 3) as u32,
            stall_timeout: Duration::from_millis(between(5_000, 8_000)),
            checkpoints: match between(0, 2) {
                0 => Cadence::EpochsOnly,
                1 => Cadence::Steps(between(1, 4) as u32),
                _ => Cadence::Seconds(between(1, 20) as f64 / 10.0),
            },
            grace: Duration::from_millis(between(8_000, 12_000)),
            global_batch: max_workers + between(0, 3) as usize,
            validation_fraction: 0.25,
            validation_chunk: between(1, 4) as usize,
            seed,
            schedule: Schedule {
                base: [1e-3; 6],
                decay: Decay::Constant,
                warmup_epochs: 0,
                epochs: between(2, 5) as u32,
            },
            stopping: Rule {
                patience: between(1, 4) as u32,
                min_delta: 0.0,
            },
            strict_data: false,
            precision: Precision::Fp32,
            threads_per_worker: None,
        };
        let count = between(12, 48) as u32;
        let files = (0..count).map(|n| (format!("a/{n}.jpg"), 1)).collect();
        let bad = match between(0, 2) {
            0 => vec![between(0, u64::from(count) - 1) as u32],
            _ => Vec::new(),
        };
        let usable: Vec<u32> = (0..count).filter(|n| !bad.contains(n)).collect();
        let averages = between(0, 1) == 0;
        let results_come_late = between(0, 1) == 0;
        let redelivers = !quiet && between(0, 3) == 0;
        let poison = (between(0, 11) == 0).then(|| Position {
            epoch: between(1, 3) as u32,
            completed: between(1, 3) as u32,
        });
        let faults = match (quiet, between(0, 9)) {
            (true, _) => 0,
            (_, 0) => 1,
            _ => between(1, 6),
        };
        let life = [120, 400, 900][between(0, 2) as usize];
        let mut faults: Vec<u64> = (0..faults).map(|_| between(1, life)).collect();
        faults.sort_unstable();
        Self {
            reference: Reference::new(&recipe, &usable, poison),
            recipe,
            files,
            bad,
            averages,
            results_come_late,
            redelivers,
            faults,
        }
    }
}
