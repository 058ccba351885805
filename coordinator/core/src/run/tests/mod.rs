//! Single transitions of a run, for which the simulation would be a blunt tool.

mod launched;
mod resumed;
mod threads;

use super::*;
use crate::early_stopping::Rule;
use crate::event::{
    Activity, Command, EnvironmentError, EpochReport, Fact, FailureKind, Heartbeat, Outcome,
    Phases, RetainedState, SaveState, Scan, StepReport, ValidationSum,
};
use crate::schedule::{Decay, Schedule};

/// 8 files: 6 to train on in 3 steps, 2 to validate.
fn recipe(workers: usize, local_ranks: u32) -> Recipe {
    Recipe {
        workers,
        local_ranks,
        min_workers: 1,
        max_workers: workers,
        rejoin_timeout: Duration::from_secs(5),
        max_restarts: 2,
        stall_timeout: Duration::from_secs(10),
        checkpoints: Cadence::EpochsOnly,
        grace: Duration::from_secs(10),
        global_batch: 2,
        validation_fraction: 0.25,
        validation_chunk: 2,
        seed: 1,
        schedule: Schedule {
            base: [1e-3; 6],
            decay: Decay::Constant,
            warmup_epochs: 0,
            epochs: 9,
        },
        stopping: Rule {
            patience: 9,
            min_delta: 0.0,
        },
        strict_data: false,
        precision: Precision::Fp32,
        threads_per_worker: None,
    }
}

/// Of a worker that has nothing yet.
fn scan() -> Scan {
    Scan {
        fingerprint: "same".to_owned(),
        classes: vec!["a".to_owned()],
        files: (0..8).map(|n| (format!("a/{n}.jpg"), 1)).collect(),
        device: "cpu".to_owned(),
        ..Scan::default()
    }
}

struct Bench {
    run: Run,
    now: Now,
}

impl Bench {
    fn new(run: Run) -> Self {
        let now = Now::ZERO;
        Self { run, now }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.run.step(self.now, event)
    }

    fn join(&mut self, id: u64, local_rank: Option<u32>, memory: RetainedState) -> Vec<Action> {
        let scan = Scan { memory, ..scan() };
        self.join_with(id, local_rank, scan)
    }

    fn join_with(&mut self, id: u64, local_rank: Option<u32>, scan: Scan) -> Vec<Action> {
        let worker = WorkerId(id);
        let mut actions = self.tell(Event::Joined {
            worker,
            host: "host".to_owned(),
            pid: 100 + id as u32,
            instance: id,
            local_rank,
        });
        actions.extend(self.tell(Event::Scanned { worker, scan }));
        actions
    }

    /// All of `workers`, started by hand, are in the first steps.
    fn training(workers: usize) -> Self {
        let mut bench = Self::new(Run::new(recipe(workers, 0)));
        for id in 0..workers as u64 {
            bench.join(id, None, RetainedState::default());
        }
        for id in 0..workers as u64 {
            bench.prepared(id);
        }
        for id in 0..workers as u64 {
            let (worker, generation) = (WorkerId(id), 1);
            bench.tell(Event::GroupReady { worker, generation });
        }
        assert!(matches!(bench.run.phase, Phase::Training(_)));
        bench
    }

    fn step(&mut self, id: u64, completed: u32, loss_sum: f64) -> Vec<Action> {
        let report = StepReport {
            generation: self.run.generation,
            epoch: self.run.position.epoch,
            completed,
            loss_sum,
            samples: 1,
            seconds: 1.0,
            phases: Phases::default(),
        };
        self.tell(Event::Step {
            worker: WorkerId(id),
            report,
        })
    }

    fn prepared(&mut self, id: u64) -> Vec<Action> {
        let (worker, bad) = (WorkerId(id), Vec::new());
        self.tell(Event::Prepared { worker, bad })
    }

    fn lose(&mut self, id: u64) -> Vec<Action> {
        let worker = WorkerId(id);
        self.tell(Event::Lost { worker })
    }

    fn started(&mut self, local_rank: u32, pid: u32) {
        self.tell(Event::ProcessStarted { local_rank, pid });
    }

    /// One worker makes all of an epoch.
    fn epoch(&mut self, loss: f64) -> Vec<Action> {
        for completed in 1..=self.run.steps_of_an_epoch() {
            self.step(0, completed, 1.0);
        }
        let report = EpochReport {
            generation: self.run.generation,
            epoch: self.run.position.epoch,
            loss_sum: 1.0,
            samples: 6,
            validation: vec![ValidationSum {
                chunk: 0,
                loss_sum: 2.0 * loss,
                correct: 1,
                samples: 2,
            }],
            phases: Phases::default(),
        };
        self.tell(Event::EpochDone {
            worker: WorkerId(0),
            report,
        })
    }
}

fn sent(actions: &[Action]) -> Vec<(u64, &Command)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send(worker, command) => Some((worker.0, command)),
        _ => None,
    });
    sent.collect()
}

fn outcome(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::End(outcome) => Some(outcome),
        _ => None,
    })
}

fn launched(actions: &[Action]) -> Vec<u32> {
    let launched = actions.iter().filter_map(|action| match action {
        Action::Launch { local_rank } => Some(*local_rank),
        _ => None,
    });
    launched.collect()
}

#[test]
fn the_address_of_the_store_is_announced_once() {
    let mut bench = Bench::new(Run::new(recipe(2, 0)));
    for id in 0..2 {
        bench.join(id, None, RetainedState::default());
    }
    for id in 0..2 {
        bench.prepared(id);
    }
    let listening = Event::StoreListening {
        worker: WorkerId(0),
        generation: 1,
        address: "host:1".to_owned(),
    };
    assert_eq!(sent(&bench.tell(listening.clone())).len(), 1);
    assert_eq!(bench.tell(listening), []);
}

#[test]
fn a_checkpoint_waits_for_the_best_weights() {
    let mut bench = Bench::training(1);
    let asks = |actions: &[Action], keep| {
        let order = Command::SaveState(keep);
        sent(actions).iter().any(|(_, command)| **command == order)
    };
    let validation_losses = bench.epoch(0.5);
    assert!(
        asks(&validation_losses, SaveState::Best(1))
            && !asks(&validation_losses, SaveState::Checkpoint)
    );
    let stored = bench.tell(Event::BestStored { epoch: 1 });
    assert!(asks(&stored, SaveState::Checkpoint));
    // Nothing better: the checkpoint is due at once.
    bench.tell(Event::CheckpointStored {
        position: Position::start_of(2),
    });
    assert!(asks(&bench.epoch(0.6), SaveState::Checkpoint));
}

#[test]
fn the_lowest_rank_that_is_left_sends_predictions() {
    let mut bench = Bench::training(3);
    bench.tell(Event::Interrupt);
    for id in 0..3 {
        bench.step(id, 1, 1.0);
    }
    let mut told = Vec::new();
    for id in 0..3 {
        told.extend(bench.step(id, 2, 1.0));
    }
    let position = Position {
        epoch: 1,
        completed: 2,
    };
    told.extend(bench.tell(Event::CheckpointStored { position }));
    assert!(bench.run.awaits_predictions(WorkerId(0)), "{told:?}");
    bench.lose(1);
    bench.lose(0);
    assert!(bench.run.awaits_predictions(WorkerId(2)));
    let (worker, generation) = (WorkerId(2), 1);
    let last = bench.tell(Event::Finished { worker, generation });
    assert_eq!(outcome(&last), Some(&Ok(StopReason::Interrupted)));
}

#[test]
fn a_loss_that_is_not_finite_ends_training_once() {
    let mut bench = Bench::training(2);
    for completed in 1..=2 {
        for id in 0..2 {
            bench.step(id, completed, f64::NAN);
        }
    }
    assert!(matches!(bench.run.phase, Phase::Finishing(_)));
}

#[test]
fn the_last_worker_to_drain_uploads_what_only_it_retains() {
    let mut bench = Bench::training(1);
    let worker = WorkerId(0);
    bench.tell(Event::Draining { worker });
    bench.step(0, 1, 1.0);
    bench.step(0, 2, 1.0);
    let position = Position {
        epoch: 1,
        completed: 2,
    };
    let generation_aborted = bench.tell(Event::GenerationAborted {
        worker,
        generation: 1,
        retained: Some(position),
    });
    assert!(
        bench.run.awaits_checkpoint(worker),
        "{generation_aborted:?}"
    );
    let stored = bench.tell(Event::CheckpointStored { position });
    assert!(
        matches!(
            sent(&stored)[..],
            [(0, Command::Shutdown { abort: false, .. })]
        ),
        "{stored:?}"
    );
}

#[test]
fn a_last_checkpoint_that_does_not_come_is_reported() {
    let mut bench = Bench::training(1);
    bench.tell(Event::Interrupt);
    bench.step(0, 1, 1.0);
    bench.step(0, 2, 1.0);
    assert!(bench.run.awaits_checkpoint(WorkerId(0)));
    bench.now += bench.run.recipe.grace;
    let ended = bench.tell(Event::Tick);
    assert!(ended.contains(&Action::Notify(Fact::CheckpointMissed)));
    assert_eq!(outcome(&ended), Some(&Ok(StopReason::Interrupted)));
}

#[test]
fn a_rank_that_does_not_begin_to_join_is_evicted() {
    let mut bench = Bench::training(2);
    bench.lose(1);
    bench.tell(Event::GenerationAborted {
        worker: WorkerId(0),
        generation: 1,
        retained: Some(Position::start_of(1)),
    });
    bench.join(2, None, RetainedState::default());
    bench.prepared(2);
    assert_eq!(bench.run.generation, 2);
    bench.now = Now::from_secs(20);
    bench.tell(Event::Heartbeat {
        worker: WorkerId(0),
        heartbeat: Heartbeat {
            generation: 2,
            position: Position::start_of(1),
            activity: crate::event::Activity::Forming,
            seconds: 20.0,
        },
    });
    let evict = bench.tell(Event::Tick);
    let told: Vec<_> = sent(&evict);
    assert!(
        told.iter()
            .any(|(to, command)| *to == 2
                && matches!(command, Command::Shutdown { abort: true, .. })),
        "{told:?}"
    );
}

#[test]
fn a_late_heartbeat_is_ignored() {
    let mut bench = Bench::training(2);
    let worker = WorkerId(0);
    let place = |generation, completed| Heartbeat {
        generation,
        position: Position {
            epoch: 1,
            completed,
        },
        activity: Activity::Backward,
        seconds: 0.0,
    };
    let mut last = |heartbeat| {
        bench.tell(Event::Heartbeat { worker, heartbeat });
        let member = bench.run.members.get(worker)?;
        member.heartbeat.map(|(_, last)| last)
    };
    assert_eq!(last(place(1, 2)), Some(place(1, 2)));
    assert_eq!(last(place(0, 9)), Some(place(1, 2)));
    assert_eq!(last(place(1, 1)), Some(place(1, 2)));
    assert_eq!(last(place(2, 0)), Some(place(2, 0)));
}

#[test]
fn what_no_worker_can_do_fails_the_run_for_what_it_is() {
    let failed = |bench: &mut Bench| {
        bench.tell(Event::Failed {
            worker: WorkerId(1),
            kind: FailureKind::Environment,
            message: "out of memory".to_owned(),
        })
    };
    let mut bench = Bench::training(2);
    let at_first = failed(&mut bench);
    let expected = EnvironmentError::Reported("out of memory".to_owned());
    assert_eq!(outcome(&at_first), Some(&Err(expected.into())));
    let mut bench = Bench::training(2);
    bench.step(0, 1, 1.0);
    assert_eq!(outcome(&failed(&mut bench)), None);
}
