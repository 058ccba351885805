//! Converts messages between the types of the core and those of the worker.

use std::sync::Arc;

use worker_control::{self as worker, Message, Order, Report};

use crate::Command;
use crate::event::{
    Backend, ComputeType, EpochReport, Event, FailureKind, Origin, Phases, Position, SaveState,
    StepReport, ValidationSum, WorkerId,
};

pub(super) fn to_worker(at: Position) -> worker::Position {
    worker::Position {
        epoch: at.epoch,
        completed: at.completed,
    }
}

pub(super) fn to_core(at: worker::Position) -> Position {
    Position {
        epoch: at.epoch,
        completed: at.completed,
    }
}

/// A command as the worker's message; `None` for the answer to its registration.
pub(super) fn message(command: Command) -> Option<Message> {
    Some(Message::Order(match command {
        Command::Registered => return None,
        Command::Shutdown { abort, .. } => return Some(Message::Shutdown { abort }),
        Command::Grant {
            generation,
            epoch,
            granted,
        } => {
            return Some(Message::Grant(worker::StepGrant {
                generation,
                epoch,
                granted,
            }));
        }
        Command::Prepare {
            samples,
            shared,
            threads,
            ..
        } => Order::Prepare(worker::Prepare {
            samples,
            cache_file: shared.then(|| "shared".into()),
            threads,
        }),
        command @ Command::Assign { .. } => Order::Assign(assignment(command)?),
        Command::Plan {
            generation,
            epoch,
            completed,
            shard,
            lrs,
            validation,
            granted,
        } => Order::Plan(Arc::new(worker::EpochPlan {
            generation,
            epoch,
            completed,
            samples: shard.samples,
            local_counts: shard.local_counts,
            global_counts: shard.global_counts,
            lrs,
            validation: validation
                .into_iter()
                .map(|chunk| worker::ValidationChunk {
                    chunk: chunk.index,
                    samples: chunk.samples,
                })
                .collect(),
            granted,
        })),
        Command::EpochResult {
            epoch,
            improved,
            validation_loss,
        } => Order::EpochResult(worker::EpochResult {
            epoch,
            improved,
            validation_loss,
        }),
        Command::AbortGeneration { generation } => Order::AbortGeneration(generation),
        Command::SaveState(SaveState::Best(epoch)) => {
            Order::SaveState(worker::SaveState::Best(epoch))
        }
        Command::SaveState(SaveState::Checkpoint) => {
            Order::SaveState(worker::SaveState::Checkpoint)
        }
        Command::Finish {
            generation,
            predict,
        } => Order::Finish {
            generation,
            predict,
        },
    }))
}

fn assignment(command: Command) -> Option<worker::Assignment> {
    let Command::Assign {
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
    } = command
    else {
        return None;
    };
    Some(worker::Assignment {
        generation,
        rank,
        world_size,
        store,
        backend: match backend {
            Backend::Gloo => worker::Backend::Gloo,
            Backend::Nccl => worker::Backend::Nccl,
        },
        precision: match precision {
            ComputeType::Fp32 => worker::Precision::Fp32,
            ComputeType::Bf16 => worker::Precision::Bf16,
        },
        origin: match origin {
            Origin::Fresh => worker::Origin::Fresh,
            Origin::Retained => worker::Origin::Retained,
            Origin::Checkpoint => worker::Origin::Checkpoint,
        },
        source,
        position: to_worker(position),
        threads,
    })
}

/// A report as the coordinator's event.
pub(super) fn event(worker: WorkerId, report: Report) -> Event {
    match report {
        Report::Prepared { bad } => Event::Prepared {
            worker,
            bad: bad.into_iter().map(|b| (b.sample, b.reason)).collect(),
        },
        Report::GroupReady { generation } => Event::GroupReady { worker, generation },
        Report::Step(report) => Event::Step {
            worker,
            report: StepReport {
                generation: report.generation,
                epoch: report.epoch,
                completed: report.completed,
                loss_sum: report.loss_sum,
                samples: report.samples,
                seconds: report.seconds,
                phases: Phases::default(),
            },
        },
        Report::EpochDone(report) => Event::EpochDone {
            worker,
            report: EpochReport {
                generation: report.generation,
                epoch: report.epoch,
                loss_sum: report.loss_sum,
                samples: report.samples,
                validation: report
                    .validation
                    .into_iter()
                    .map(|sum| ValidationSum {
                        chunk: sum.chunk,
                        loss_sum: sum.loss_sum,
                        correct: sum.correct,
                        samples: sum.samples,
                    })
                    .collect(),
                phases: Phases::default(),
            },
        },
        Report::GenerationAborted {
            generation,
            retained,
        } => Event::GenerationAborted {
            worker,
            generation,
            retained: retained.map(to_core),
        },
        Report::Finished { generation } => Event::Finished { worker, generation },
        Report::GroupBroken { message } => Event::Failed {
            worker,
            kind: FailureKind::Collective,
            message,
        },
    }
}
