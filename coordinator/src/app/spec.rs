//! Translates the settings of a run for the core and for the workers.

use crate::config::{self, RunConfig};
use coordinator_core::Recipe;
use coordinator_core::early_stopping::Rule;
use coordinator_core::run::Precision;
use coordinator_core::schedule::{Decay, Schedule};

/// Samples of the validation set evaluated at once.
const VALIDATION_CHUNK: usize = 64;

/// The settings that the core needs.
pub fn recipe(config: &RunConfig) -> Recipe {
    Recipe {
        workers: config.workers,
        local_ranks: if config.no_spawn {
            0
        } else {
            config.workers as u32
        },
        min_workers: config.min_workers,
        max_workers: config.max_workers,
        rejoin_timeout: config.rejoin_timeout,
        max_restarts: config.max_restarts,
        stall_timeout: config.stall_timeout,
        checkpoints: config.checkpoint_every,
        grace: config.grace,
        global_batch: config.global_batch,
        validation_fraction: config.validation_fraction,
        validation_chunk: VALIDATION_CHUNK,
        seed: config.seed,
        schedule: Schedule {
            base: config.layer_lr,
            decay: match config.lr_schedule {
                config::LrSchedule::Constant => Decay::Constant,
                config::LrSchedule::Step => Decay::Step {
                    every: config.lr_step_epochs,
                    gamma: config.lr_gamma,
                },
                config::LrSchedule::Cosine => Decay::Cosine,
            },
            warmup_epochs: config.warmup_epochs,
            epochs: config.epochs,
        },
        stopping: Rule {
            patience: config.patience,
            min_delta: config.min_delta,
        },
        strict_data: config.strict_data,
        precision: match config.precision {
            config::Precision::Auto => Precision::Auto,
            config::Precision::Fp32 => Precision::Fp32,
            config::Precision::Bf16 => Precision::Bf16,
        },
        threads_per_worker: config.threads_per_worker,
    }
}
