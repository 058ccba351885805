//! What workers report, as events of the core.

use coordinator_core::Event;
use coordinator_core::event::{
    Activity, EpochReport, FailureKind, Heartbeat, Phases, Position, Processors, RetainedState,
    Scan, StepReport, ValidationSum, WorkerId,
};
use proto::v1;
use v1::worker_message::Message as Up;

use crate::runtime::input::Registration;

/// The event for a worker's message. `None` for a second `Register`, which is out of place.
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
            heartbeat: heartbeat(m),
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

/// A position as the core knows it.
pub fn position(position: v1::Position) -> Position {
    Position {
        epoch: position.epoch,
        completed: position.completed,
    }
}

fn scan(m: v1::Scanned) -> Scan {
    let files = m.files.into_iter();
    Scan {
        fingerprint: m.fingerprint,
        classes: m.classes,
        files: files.map(|file| (file.path, file.size)).collect(),
        device: m.device,
        native_bf16: m.native_bf16,
        gpu_uuid: m.gpu_uuid,
        processors: processors(m.processors.unwrap_or_default()),
        memory: RetainedState {
            prepared: m.prepared,
            retained: m.retained.map(position),
            best: m.best_epoch,
        },
        warnings: m.warnings,
    }
}

fn processors(m: v1::Processors) -> Processors {
    Processors {
        machine: m.machine,
        ids: m.ids.into_iter().collect(),
        threads: m.threads,
        cgroup: m.cgroup,
        quota: m.quota,
    }
}

fn step_report(m: v1::StepReport) -> StepReport {
    StepReport {
        generation: m.generation,
        epoch: m.epoch,
        completed: m.completed,
        loss_sum: m.loss_sum,
        samples: m.samples,
        seconds: m.seconds,
        phases: phases(m.phases),
    }
}

fn epoch_report(m: v1::EpochReport) -> EpochReport {
    EpochReport {
        generation: m.generation,
        epoch: m.epoch,
        loss_sum: m.loss_sum,
        samples: m.samples,
        validation: m.validation.into_iter().map(validation_sum).collect(),
        phases: phases(m.phases),
    }
}

fn heartbeat(m: v1::Heartbeat) -> Heartbeat {
    Heartbeat {
        generation: m.generation,
        position: Position {
            epoch: m.epoch,
            completed: m.completed,
        },
        activity: activity(m.phase()),
        seconds: m.seconds,
    }
}

fn failure_kind(kind: v1::FailureKind) -> FailureKind {
    match kind {
        v1::FailureKind::Data => FailureKind::Data,
        v1::FailureKind::Weights => FailureKind::Weights,
        v1::FailureKind::Environment => FailureKind::Environment,
        v1::FailureKind::Device => FailureKind::Device,
        v1::FailureKind::Collective => FailureKind::Collective,
        v1::FailureKind::Internal | v1::FailureKind::Unspecified => FailureKind::Internal,
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

/// A worker, as it registers.
pub fn registration(register: v1::Register) -> Registration {
    Registration {
        host: register.host,
        pid: register.pid,
        instance: register.instance,
        local_rank: register.local_rank,
    }
}
