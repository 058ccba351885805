//! A run that is resumed from a run directory, with a worker that retains no state.

use std::time::Duration;

use coordinator_core::event::{Command, Event, Origin, Position, Scan, WorkerId};
use coordinator_core::run::{Cadence, Precision};
use coordinator_core::schedule::{Decay, Schedule};
use coordinator_core::{Action, Recipe, Run};

use super::script::RULE;
use crate::store::{RunHistory, Split};

fn recipe() -> Recipe {
    Recipe {
        workers: 1,
        local_ranks: 0,
        min_workers: 1,
        max_workers: 1,
        rejoin_timeout: Duration::ZERO,
        max_restarts: 0,
        stall_timeout: Duration::from_secs(60),
        checkpoints: Cadence::EpochsOnly,
        grace: Duration::from_secs(60),
        global_batch: 2,
        validation_fraction: 0.2,
        validation_chunk: 64,
        seed: 0,
        schedule: Schedule {
            base: Default::default(),
            decay: Decay::Constant,
            warmup_epochs: 0,
            epochs: 99,
        },
        stopping: RULE,
        strict_data: false,
        precision: Precision::Fp32,
        threads_per_worker: None,
    }
}

fn scan(split: &Split) -> Scan {
    let files = split.train.iter().chain(&split.validation);
    Scan {
        fingerprint: split.fingerprint.clone(),
        classes: split.classes.clone(),
        files: files.map(|path| (path.clone(), 1)).collect(),
        device: "cpu".to_owned(),
        ..Scan::default()
    }
}

fn joined(worker: WorkerId) -> Event {
    Event::Joined {
        worker,
        host: "host".to_owned(),
        pid: 1,
        instance: 1,
        local_rank: None,
    }
}

/// The state from which the first generation of a resumed run begins, when no worker retains one.
pub(super) fn goes_on(history: &RunHistory) -> (Origin, Position) {
    let scan = scan(history.split.as_ref().unwrap());
    let mut run = Run::resume(recipe(), history.resumed().unwrap());
    let worker = WorkerId(0);
    let bad = Vec::new();
    let mut events = vec![
        Event::Prepared { worker, bad },
        Event::Scanned { worker, scan },
        joined(worker),
    ];
    while let Some(event) = events.pop() {
        for action in run.step(Duration::ZERO, event) {
            match action {
                Action::FindCheckpoint => events.push(Event::CheckpointFound {
                    position: history.checkpoint,
                }),
                Action::Send(
                    _,
                    Command::Assign {
                        origin, position, ..
                    },
                ) => return (origin, position),
                Action::End(outcome) => panic!("{outcome:?}"),
                _ => {}
            }
        }
    }
    panic!("no generation was formed");
}
