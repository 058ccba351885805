//! Converts wire messages to the training thread's types and back. The wire types stop here.

use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use proto::v1::coordinator_message::Message as Down;
use proto::v1::worker_message::Message as Up;
use worker_control::{
    self as control, Activity, Assignment, Backend, EpochPlan, EpochResult, Message, Order, Origin,
    Phases, Position, Precision, Prepare, Report, SaveState, StepGrant, TrainError,
    ValidationChunk,
};

use crate::model::ParameterGroup;
use crate::trainer::activity::Snapshot;
use crate::trainer::link::{Predictions, Scanned};
use crate::trainer::setup::{DeviceChoice, Settings};

/// A message as the session handles it; `None` for one that only opens the session.
///
/// # Errors
/// The message lacks something that the training thread needs.
pub(super) fn message(down: Down) -> Result<Option<Message>, String> {
    Ok(Some(Message::Order(match down {
        Down::Registered(_) => return Ok(None),
        Down::Shutdown(shutdown) => {
            let abort = shutdown.abort;
            return Ok(Some(Message::Shutdown { abort }));
        }
        Down::StepGrant(grant) => {
            return Ok(Some(Message::Grant(StepGrant {
                generation: grant.generation,
                epoch: grant.epoch,
                granted: grant.granted,
            })));
        }
        Down::Prepare(order) => Order::Prepare(Prepare {
            samples: order.samples,
            cache_file: order.cache_file.map(Into::into),
            threads: order.threads,
        }),
        Down::Assignment(order) => Order::Assign(assignment(order)?),
        Down::EpochPlan(order) => Order::Plan(Arc::new(plan(order)?)),
        Down::EpochResult(result) => Order::EpochResult(EpochResult {
            epoch: result.epoch,
            improved: result.improved,
            validation_loss: result.validation_loss,
        }),
        Down::AbortGeneration(order) => Order::AbortGeneration(order.generation),
        Down::SaveState(order) => Order::SaveState(match order.what {
            Some(v1::save_state::What::Best(epoch)) => SaveState::Best(epoch),
            Some(v1::save_state::What::Checkpoint(_)) => SaveState::Checkpoint,
            None => return Err("SaveState names no state".to_owned()),
        }),
        Down::Finish(order) => Order::Finish {
            generation: order.generation,
            predict: order.predict,
        },
    })))
}

fn assignment(order: v1::Assignment) -> Result<Assignment, String> {
    let unknown = |what: &str| format!("Assignment has an unknown {what}");
    Ok(Assignment {
        generation: order.generation,
        rank: order.rank,
        world_size: order.world_size,
        backend: match order.backend() {
            v1::Backend::Gloo => Backend::Gloo,
            v1::Backend::Nccl => Backend::Nccl,
            v1::Backend::Unspecified => return Err(unknown("backend")),
        },
        precision: match order.precision() {
            v1::Precision::Fp32 => Precision::Fp32,
            v1::Precision::Bf16 => Precision::Bf16,
            v1::Precision::Unspecified => return Err(unknown("precision")),
        },
        origin: match order.origin() {
            v1::Origin::Fresh => Origin::Fresh,
            v1::Origin::Retained => Origin::Retained,
            v1::Origin::Checkpoint => Origin::Checkpoint,
            v1::Origin::Unspecified => return Err(unknown("origin")),
        },
        source: order.source,
        position: order.position.map(from_wire).unwrap_or_default(),
        store: order.store,
        threads: order.threads,
    })
}

fn plan(plan: v1::EpochPlan) -> Result<EpochPlan, String> {
    let mut lrs = [0.0; 6];
    for (lr, group) in lrs.iter_mut().zip(ParameterGroup::ALL) {
        let name = group.as_str();
        let found = plan.lrs.iter().find(|entry| entry.group == name);
        let found = found.ok_or_else(|| format!("EpochPlan has no learning rate for {name}"))?;
        *lr = found.lr;
    }
    let chunk = |chunk: v1::ValidationChunk| ValidationChunk {
        chunk: chunk.chunk,
        samples: chunk.samples,
    };
    let steps = plan.local_counts.len();
    let samples: u64 = plan.local_counts.iter().map(|n| u64::from(*n)).sum();
    let mut counts = plan.local_counts.iter().zip(&plan.global_counts);
    let wrong = plan.global_counts.len() != steps
        || plan.samples.len() as u64 != samples
        || counts.any(|(local, global)| local > global)
        || u32::try_from(steps).is_ok_and(|steps| plan.completed.checked_add(steps).is_none());
    if wrong {
        return Err("EpochPlan has counts that do not add up".to_owned());
    }
    Ok(EpochPlan {
        generation: plan.generation,
        epoch: plan.epoch,
        completed: plan.completed,
        samples: plan.samples,
        local_counts: plan.local_counts,
        global_counts: plan.global_counts,
        lrs,
        validation: plan.validation.into_iter().map(chunk).collect(),
        granted: plan.granted,
    })
}

/// The settings of the run.
pub(super) fn settings(settings: v1::Settings) -> Result<Settings, String> {
    let some = |number: u32| (number > 0).then_some(number as usize);
    Ok(Settings {
        limit_per_class: some(settings.limit_per_class),
        image_size: settings.image_size,
        pretrained: settings.pretrained,
        device: match settings.device.as_str() {
            "auto" => DeviceChoice::Auto,
            "cpu" => DeviceChoice::Cpu,
            "cuda" => DeviceChoice::Cuda,
            other => return Err(format!("the coordinator asks for the device `{other}`")),
        },
        seed: settings.seed,
        weight_decay: settings.weight_decay,
        frozen_batch_norm: settings.frozen_batch_norm,
        collective_timeout: Duration::from_secs(settings.collective_timeout_seconds.into()),
    })
}

/// A report of the training thread.
pub(super) fn report(report: Report) -> Up {
    match report {
        Report::Prepared { bad } => Up::Prepared(v1::Prepared {
            bad: bad
                .into_iter()
                .map(|bad| v1::BadFile {
                    sample: bad.sample,
                    reason: bad.reason,
                })
                .collect(),
        }),
        Report::GroupReady { generation } => Up::GroupReady(v1::GroupReady { generation }),
        Report::Step(step) => Up::StepReport(v1::StepReport {
            generation: step.generation,
            epoch: step.epoch,
            completed: step.completed,
            loss_sum: step.loss_sum,
            samples: step.samples,
            seconds: step.seconds,
            phases: Some(phases(step.phases)),
        }),
        Report::EpochDone(epoch) => Up::EpochReport(v1::EpochReport {
            generation: epoch.generation,
            epoch: epoch.epoch,
            loss_sum: epoch.loss_sum,
            samples: epoch.samples,
            validation: epoch.validation.iter().map(sum).collect(),
            phases: Some(phases(epoch.phases)),
        }),
        Report::GenerationAborted {
            generation,
            retained,
        } => Up::GenerationAborted(v1::GenerationAborted {
            generation,
            retained: retained.map(to_wire),
        }),
        Report::Finished { generation } => Up::Finished(v1::Finished { generation }),
        Report::GroupBroken { message } => failure(&TrainError::Collective(message)),
    }
}

/// Why the training thread ended.
pub(super) fn failure(error: &TrainError) -> Up {
    let kind = match error {
        TrainError::Data(_) => v1::FailureKind::Data,
        TrainError::Weights(_) => v1::FailureKind::Weights,
        TrainError::Environment(_) => v1::FailureKind::Environment,
        TrainError::Device(_) => v1::FailureKind::Device,
        TrainError::Collective(_) => v1::FailureKind::Collective,
        TrainError::Internal(_) => v1::FailureKind::Internal,
    };
    Up::Failure(v1::Failure {
        kind: kind.into(),
        message: error.to_string(),
    })
}

/// Data, device and retained state of a worker, and what is wrong with its machine.
pub(super) fn scanned(scanned: Scanned, warnings: &[String]) -> Up {
    Up::Scanned(v1::Scanned {
        fingerprint: scanned.fingerprint,
        classes: scanned.manifest.classes.clone(),
        files: scanned.manifest.entries(),
        device: scanned.device,
        native_bf16: scanned.native_bf16,
        gpu_uuid: scanned.gpu_uuid,
        processors: Some(v1::Processors {
            machine: scanned.processors.machine,
            ids: scanned.processors.ids,
            threads: scanned.processors.threads,
            cgroup: scanned.processors.cgroup,
            quota: scanned.processors.quota,
        }),
        prepared: scanned.retained.prepared,
        retained: scanned.retained.retained.map(to_wire),
        best_epoch: scanned.retained.best,
        warnings: [warnings, &scanned.manifest.passed_over].concat(),
    })
}

/// What the training thread does now.
pub(super) fn heartbeat(now: &Snapshot) -> Up {
    let phase = match now.activity {
        Activity::Idle => v1::Phase::Unspecified,
        Activity::Preparing => v1::Phase::Preparing,
        Activity::Forming => v1::Phase::Forming,
        Activity::DataWait => v1::Phase::DataWait,
        Activity::Forward => v1::Phase::Forward,
        Activity::Backward => v1::Phase::Backward,
        Activity::Optimizer => v1::Phase::Optimizer,
        Activity::Validation => v1::Phase::Validation,
    };
    Up::Heartbeat(v1::Heartbeat {
        generation: now.generation,
        epoch: now.position.epoch,
        completed: now.position.completed,
        phase: phase.into(),
        seconds: now.since.elapsed().as_secs_f64(),
    })
}

pub(super) fn predictions(predictions: Predictions) -> v1::Predictions {
    let prediction = |one: crate::trainer::link::Prediction| v1::Prediction {
        sample: one.sample,
        predicted: one.class,
        probability: one.probability,
        pixels: one.pixels,
    };
    v1::Predictions {
        image_size: predictions.image_size,
        predictions: predictions
            .predictions
            .into_iter()
            .map(prediction)
            .collect(),
    }
}

pub(super) fn to_wire(at: Position) -> v1::Position {
    v1::Position {
        epoch: at.epoch,
        completed: at.completed,
    }
}

fn from_wire(at: v1::Position) -> Position {
    Position {
        epoch: at.epoch,
        completed: at.completed,
    }
}

fn phases(phases: Phases) -> v1::PhaseSeconds {
    v1::PhaseSeconds {
        data_wait: phases.data_wait,
        forward_backward: phases.forward_backward,
        allreduce_wait: phases.allreduce_wait,
        optimizer: phases.optimizer,
        validation: phases.validation,
    }
}

fn sum(sum: &control::ValidationSum) -> v1::ValidationSum {
    v1::ValidationSum {
        chunk: sum.chunk,
        loss_sum: sum.loss_sum,
        correct: sum.correct,
        samples: sum.samples,
    }
}
