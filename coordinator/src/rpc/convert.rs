//! Wire messages to the core's events, the core's commands to wire messages. The proto types
//! stop here.

use proto::v1;
use v1::coordinator_message::Message as Down;
use v1::worker_message::Message as Up;

use coordinator_core::event::{
    Activity, Backend, ComputeType, EpochReport, FailureKind, Heartbeat, Origin, Phases, Position,
    RetainedState, SaveState, Scan, StepReport, ValidationSum, WorkerId,
};
use coordinator_core::schedule::by_group;
use coordinator_core::{Command, Event};

/// The event that a worker's message is. `None` for a message out of place: a second `Register`,
/// or one this version does not know.
pub fn event(worker: WorkerId, host: &str, message: Up) -> Option<Event> {
    Some(match message {
        Up::Register(_) => return None,
        Up::Scanned(m) => Event::Scanned {
            worker,
            scan: scan(m),
        },
        Up::Preparing(m) => Event::Preparing {
            worker,
            done: m.done,
        },
        Up::Prepared(m) => Event::Prepared {
            worker,
            bad: m
                .bad
                .into_iter()
                .map(|bad| (bad.sample, bad.reason))
                .collect(),
        },
        Up::StoreListening(m) => Event::StoreListening {
            worker,
            generation: m.generation,
            address: match m.host.as_str() {
                "" => format!("{host}:{}", m.port),
                given => format!("{given}:{}", m.port),
            },
        },
        Up::GroupReady(m) => Event::GroupReady {
            worker,
            generation: m.generation,
        },
        Up::StepReport(m) => Event::Step {
            worker,
            report: step_report(m),
        },
        Up::EpochReport(m) => Event::EpochDone {
            worker,
            report: epoch_report(m),
        },
        Up::GenerationAborted(m) => Event::GenerationAborted {
            worker,
            generation: m.generation,
            retained: m.retained.map(position),
        },
        Up::Draining(_) => Event::Draining { worker },
        Up::Heartbeat(m) => Event::Heartbeat {
            worker,
            heartbeat: Heartbeat {
                generation: m.generation,
                position: Position {
                    epoch: m.epoch,
                    completed: m.completed,
                },
                activity: activity(m.phase()),
                seconds: m.seconds,
            },
        },
        Up::Finished(m) => Event::Finished {
            worker,
            generation: m.generation,
        },
        Up::Failure(m) => Event::Failed {
            worker,
            kind: failure_kind(m.kind()),
            message: m.message,
        },
    })
}

fn scan(scanned: v1::Scanned) -> Scan {
    let files = scanned.files.into_iter();
    Scan {
        fingerprint: scanned.fingerprint,
        classes: scanned.classes,
        files: files.map(|file| (file.path, file.size)).collect(),
        device: scanned.device,
        native_bf16: scanned.native_bf16,
        gpu_uuid: scanned.gpu_uuid,
        memory: RetainedState {
            prepared: scanned.prepared,
            retained: scanned.retained.map(position),
            best: scanned.best_epoch,
        },
        warnings: scanned.warnings,
    }
}

fn step_report(report: v1::StepReport) -> StepReport {
    StepReport {
        generation: report.generation,
        epoch: report.epoch,
        completed: report.completed,
        loss_sum: report.loss_sum,
        samples: report.samples,
        seconds: report.seconds,
        phases: phases(report.phases),
    }
}

fn epoch_report(report: v1::EpochReport) -> EpochReport {
    let validation = report.validation.into_iter();
    EpochReport {
        generation: report.generation,
        epoch: report.epoch,
        loss_sum: report.loss_sum,
        samples: report.samples,
        validation: validation.map(validation_sum).collect(),
        phases: phases(report.phases),
    }
}

fn failure_kind(kind: v1::FailureKind) -> FailureKind {
    match kind {
        v1::FailureKind::Data => FailureKind::Data,
        v1::FailureKind::Weights => FailureKind::Weights,
        v1::FailureKind::Environment => FailureKind::Environment,
        v1::FailureKind::Collective => FailureKind::Collective,
        v1::FailureKind::Internal | v1::FailureKind::Unspecified => FailureKind::Internal,
    }
}

/// A position as the core knows it.
pub fn position(position: v1::Position) -> Position {
    Position {
        epoch: position.epoch,
        completed: position.completed,
    }
}

fn activity(phase: v1::Phase) -> Activity {
    match phase {
        v1::Phase::Unspecified => Activity::Idle,
        v1::Phase::DataWait => Activity::DataWait,
        v1::Phase::Forward => Activity::Forward,
        v1::Phase::Backward => Activity::Backward,
        v1::Phase::Optimizer => Activity::Optimizer,
        v1::Phase::Validation => Activity::Validation,
        v1::Phase::Forming => Activity::Forming,
        v1::Phase::Preparing => Activity::Preparing,
    }
}

fn phases(phases: Option<v1::PhaseSeconds>) -> Phases {
    let phases = phases.unwrap_or_default();
    Phases {
        data_wait: phases.data_wait,
        forward_backward: phases.forward_backward,
        allreduce_wait: phases.allreduce_wait,
        optimizer: phases.optimizer,
        validation: phases.validation,
    }
}

fn validation_sum(sum: v1::ValidationSum) -> ValidationSum {
    ValidationSum {
        chunk: sum.chunk,
        loss_sum: sum.loss_sum,
        correct: sum.correct,
        samples: sum.samples,
    }
}

/// What a message needs beside its command.
#[derive(Debug)]
pub struct Context<'a> {
    /// What every worker is to train.
    pub settings: &'a v1::Settings,
    /// Which run it is.
    pub run_id: &'a str,
    /// Where workers that share a cache find it.
    pub cache_file: Option<String>,
    /// The time of day.
    pub unix_seconds: f64,
}

/// The message to `worker` that a command is.
pub fn message(worker: WorkerId, command: Command, context: Context<'_>) -> v1::CoordinatorMessage {
    let message = match command {
        Command::Registered => Down::Registered(v1::Registered {
            worker_id: worker.0,
            settings: Some(context.settings.clone()),
            run_id: context.run_id.to_owned(),
            unix_seconds: context.unix_seconds,
        }),
        Command::Prepare {
            samples,
            images: _,
            shared,
        } => Down::Prepare(v1::Prepare {
            samples,
            cache_file: context.cache_file.filter(|_| shared),
        }),
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
        } => {
            let origin = match origin {
                Origin::Fresh => v1::Origin::Fresh,
                Origin::Retained => v1::Origin::Retained,
                Origin::Checkpoint => v1::Origin::Checkpoint,
            };
            let backend = match backend {
                Backend::Nccl => v1::Backend::Nccl,
                Backend::Gloo => v1::Backend::Gloo,
            };
            let precision = match precision {
                ComputeType::Bf16 => v1::Precision::Bf16,
                ComputeType::Fp32 => v1::Precision::Fp32,
            };
            Down::Assignment(v1::Assignment {
                generation,
                rank,
                world_size,
                store,
                backend: backend.into(),
                precision: precision.into(),
                origin: origin.into(),
                source,
                position: Some(v1::Position {
                    epoch: position.epoch,
                    completed: position.completed,
                }),
            })
        }
        Command::Plan {
            generation,
            epoch,
            completed,
            shard,
            lrs,
            validation,
            granted,
        } => {
            let lrs = by_group(lrs)
                .map(|(group, lr)| v1::GroupLr {
                    group: group.to_owned(),
                    lr,
                })
                .collect();
            let validation = validation
                .into_iter()
                .map(|chunk| v1::ValidationChunk {
                    chunk: chunk.index,
                    samples: chunk.samples,
                })
                .collect();
            Down::EpochPlan(v1::EpochPlan {
                generation,
                epoch,
                samples: shard.samples,
                local_counts: shard.local_counts,
                global_counts: shard.global_counts,
                lrs,
                validation,
                granted,
                completed,
            })
        }
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
            generation,
            epoch,
            improved,
            validation_loss,
        } => Down::EpochResult(v1::EpochResult {
            generation,
            epoch,
            improved,
            validation_loss,
        }),
        Command::AbortGeneration { generation } => {
            Down::AbortGeneration(v1::AbortGeneration { generation })
        }
        Command::SaveState(keep) => Down::SaveState(v1::SaveState {
            what: Some(match keep {
                SaveState::Best(epoch) => v1::save_state::What::Best(epoch),
                SaveState::Checkpoint => v1::save_state::What::Checkpoint(true),
            }),
        }),
        Command::Finish { generation, show } => Down::Finish(v1::Finish { generation, show }),
        Command::Shutdown { reason, abort } => Down::Shutdown(v1::Shutdown {
            reason: reason.to_string(),
            abort,
        }),
    };
    v1::CoordinatorMessage {
        message: Some(message),
    }
}
