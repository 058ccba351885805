//! The settings as people give them, in the words of the core and of the wire.

use proto::v1;

use crate::config::{self, CheckpointEvery, DataSource, RunConfig};
use crate::launcher;
use coordinator_core::Recipe;
use coordinator_core::early_stopping::Rule;
use coordinator_core::run::{Cadence, Precision};
use coordinator_core::schedule::{Decay, Schedule};

/// Samples of the validation set evaluated at once.
const VALIDATION_CHUNK: usize = 64;

/// What the core needs of the settings.
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
        checkpoints: match config.checkpoint_every {
            CheckpointEvery::Epoch => Cadence::EpochsOnly,
            CheckpointEvery::Steps(steps) => Cadence::Steps(steps),
            CheckpointEvery::Seconds(seconds) => Cadence::Seconds(seconds.into()),
        },
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
    }
}

/// What every worker needs of the settings.
pub fn settings(config: &RunConfig) -> v1::Settings {
    let threads = config
        .threads_per_worker
        .or_else(|| (!config.no_spawn).then(|| launcher::share_of_processors(config.workers)));
    v1::Settings {
        data: match &config.data {
            DataSource::Demo => "demo".to_owned(),
            DataSource::Directory(path) => path.to_string_lossy().into_owned(),
        },
        limit_per_class: config.limit_per_class.unwrap_or(0) as u32,
        image_size: config.image_size,
        pretrained: config
            .pretrained
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        device: config.device.word().to_owned(),
        threads: threads.unwrap_or(0) as u32,
        seed: config.seed,
        weight_decay: config.weight_decay,
        frozen_batch_norm: config.batch_norm == config::BatchNorm::Frozen,
        hold_timeout_seconds: config.hold_timeout.as_secs() as u32,
        collective_timeout_seconds: config.collective_timeout.as_secs() as u32,
        otlp_endpoint: config.otlp_endpoint.clone().unwrap_or_default(),
    }
}
