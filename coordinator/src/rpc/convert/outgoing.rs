//! Commands of the core, as messages to workers.

use coordinator_core::Command;
use coordinator_core::event::{
    Backend, ComputeType, Origin, Position, SaveState, ShutdownReason, WorkerId,
};
use coordinator_core::schedule::by_group;
use coordinator_core::shard::Chunk;
use proto::v1;
use v1::coordinator_message::Message as Down;

use crate::config::{BatchNorm, DataSource, RunConfig};
use crate::net::clock::unix_seconds;
use crate::runtime::channels::Outgoing;

/// What messages contain beside the command.
#[derive(Debug)]
pub struct Wire {
    settings: v1::Settings,
    run_id: String,
}

impl Wire {
    /// The settings of `config` that workers need.
    #[must_use]
    pub fn new(config: &RunConfig, run_id: String) -> Self {
        let settings = v1::Settings {
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
            seed: config.seed,
            weight_decay: config.weight_decay,
            frozen_batch_norm: config.batch_norm == BatchNorm::Frozen,
            hold_timeout_seconds: config.hold_timeout.as_secs() as u32,
            collective_timeout_seconds: config.collective_timeout.as_secs() as u32,
            otlp_endpoint: config.otlp_endpoint.clone().unwrap_or_default(),
        };
        Self { settings, run_id }
    }

    fn registered(&self, worker: WorkerId) -> v1::Registered {
        v1::Registered {
            worker_id: worker.0,
            settings: Some(self.settings.clone()),
            run_id: self.run_id.clone(),
            unix_seconds: unix_seconds(),
        }
    }
}

/// The message for a command to `worker`.
pub fn message(worker: WorkerId, outgoing: Outgoing, wire: &Wire) -> v1::CoordinatorMessage {
    let message = Some(match outgoing.command {
        Command::Registered => Down::Registered(wire.registered(worker)),
        Command::Prepare {
            samples, threads, ..
        } => prepare(samples, threads, outgoing.cache_file),
        Command::Assign {
            generation,
            rank,
            world_size,
            store,
            backend,
            precision,
            origin,
            source,
            position,
            threads,
        } => Down::Assignment(v1::Assignment {
            generation,
            rank,
            world_size,
            store,
            backend: backend_of(backend).into(),
            precision: precision_of(precision).into(),
            origin: origin_of(origin).into(),
            source,
            position: Some(position_of(position)),
            threads,
        }),
        Command::Plan {
            generation,
            epoch,
            completed,
            shard,
            lrs,
            validation,
            granted,
        } => Down::EpochPlan(v1::EpochPlan {
            generation,
            epoch,
            samples: shard.samples,
            local_counts: shard.local_counts,
            global_counts: shard.global_counts,
            lrs: by_group(lrs).map(group_lr).collect(),
            validation: validation.into_iter().map(validation_chunk).collect(),
            granted,
            completed,
        }),
        Command::Grant {
            generation,
            epoch,
            granted,
        } => Down::StepGrant(v1::StepGrant {
            generation,
            epoch,
            granted,
        }),
        Command::EpochResult {
            epoch,
            improved,
            validation_loss,
        } => Down::EpochResult(v1::EpochResult {
            epoch,
            improved,
            validation_loss,
        }),
        Command::AbortGeneration { generation } => {
            Down::AbortGeneration(v1::AbortGeneration { generation })
        }
        Command::SaveState(what) => Down::SaveState(save_state(what)),
        Command::Finish {
            generation,
            predict,
        } => finish(generation, predict),
        Command::Shutdown { reason, abort } => shutdown(&reason, abort),
    });
    v1::CoordinatorMessage { message }
}

fn prepare(samples: Vec<u32>, threads: u32, cache_file: Option<String>) -> Down {
    Down::Prepare(v1::Prepare {
        samples,
        cache_file,
        threads,
    })
}

fn finish(generation: u64, predict: Vec<u32>) -> Down {
    Down::Finish(v1::Finish {
        generation,
        predict,
    })
}

fn shutdown(reason: &ShutdownReason, abort: bool) -> Down {
    Down::Shutdown(v1::Shutdown {
        reason: reason.to_string(),
        abort,
        refused: matches!(reason, ShutdownReason::Refused(_)),
    })
}

fn save_state(what: SaveState) -> v1::SaveState {
    let what = Some(match what {
        SaveState::Best(epoch) => v1::save_state::What::Best(epoch),
        SaveState::Checkpoint => v1::save_state::What::Checkpoint(v1::WholeState {}),
    });
    v1::SaveState { what }
}

fn position_of(position: Position) -> v1::Position {
    v1::Position {
        epoch: position.epoch,
        completed: position.completed,
    }
}

fn origin_of(origin: Origin) -> v1::Origin {
    match origin {
        Origin::Fresh => v1::Origin::Fresh,
        Origin::Retained => v1::Origin::Retained,
        Origin::Checkpoint => v1::Origin::Checkpoint,
    }
}

fn backend_of(backend: Backend) -> v1::Backend {
    match backend {
        Backend::Nccl => v1::Backend::Nccl,
        Backend::Gloo => v1::Backend::Gloo,
    }
}

fn precision_of(precision: ComputeType) -> v1::Precision {
    match precision {
        ComputeType::Bf16 => v1::Precision::Bf16,
        ComputeType::Fp32 => v1::Precision::Fp32,
    }
}

fn group_lr((group, lr): (&str, f64)) -> v1::GroupLr {
    v1::GroupLr {
        group: group.to_owned(),
        lr,
    }
}

fn validation_chunk(chunk: Chunk) -> v1::ValidationChunk {
    v1::ValidationChunk {
        chunk: chunk.index,
        samples: chunk.samples,
    }
}
