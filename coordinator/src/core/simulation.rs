//! A simulated cluster: workers that answer in any order, die, or lose a loss, and a Ctrl-C at
//! any moment, all from one seed. After every event the invariants must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::early_stopping::Rule;
use super::event::{
    EpochReport, EpochSummary, FailureKind, Phases, Scan, StepReport, StopReason, ValidationSum,
};
use super::random::SplitMix64;
use super::run::Precision;
use super::schedule::{Decay, Schedule};
use super::shard::{Chunk, Shard};
use super::{Action, Command, Event, Notice, Outcome, Recipe, Run, RunError, WorkerId};

const FILES: u32 = 90;

#[derive(Default)]
struct SimulatedWorker {
    inbox: Vec<Command>,
    dead: bool,
    ended: bool,
    plan: Option<(u64, u32, Shard, Vec<Chunk>)>,
    completed: u32,
    granted: u32,
    offset: usize,
}

struct Cluster {
    random: SplitMix64,
    run: Run,
    now: Duration,
    workers: BTreeMap<WorkerId, SimulatedWorker>,
    /// Samples by epoch, as trained.
    trained: BTreeMap<u32, Vec<u32>>,
    epochs: Vec<EpochSummary>,
    outcome: Option<Outcome>,
    poison: Option<u32>,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::keyed(&[seed, 1]);
        let workers = 1 + random.below(4) as usize;
        let recipe = Recipe {
            workers,
            global_batch: workers + random.below(20) as usize,
            validation_fraction: 0.2,
            validation_chunk: 1 + random.below(9) as usize,
            seed,
            schedule: Schedule {
                base: [1e-3; 6],
                decay: Decay::Constant,
                warmup_epochs: 0,
                epochs: 6,
            },
            stopping: Rule {
                patience: 2,
                min_delta: 0.0,
            },
            strict_data: false,
            precision: Precision::Fp32,
        };
        let poison = (random.below(8) == 0).then(|| 1 + random.below(5) as u32);
        Self {
            run: Run::new(recipe),
            now: Duration::ZERO,
            workers: (0..workers as u64)
                .map(|id| (WorkerId(id), SimulatedWorker::default()))
                .collect(),
            trained: BTreeMap::new(),
            epochs: Vec::new(),
            outcome: None,
            poison,
            random,
        }
    }

    fn tell(&mut self, event: Event) {
        self.now += Duration::from_millis(self.random.below(700));
        for action in self.run.step(self.now, event) {
            assert!(
                self.outcome.is_none(),
                "an action after the end: {action:?}"
            );
            match action {
                Action::Send(worker, command) => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.inbox.push(command);
                    }
                }
                Action::Notify(Notice::EpochEnded(summary)) => self.check_epoch(summary),
                Action::Notify(_) => {}
                Action::End(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    /// No sample lost or doubled; epochs follow each other; the best never gets worse.
    fn check_epoch(&mut self, summary: EpochSummary) {
        assert_eq!(summary.epoch as usize, self.epochs.len() + 1);
        let samples = &self.trained[&summary.epoch];
        let distinct: BTreeSet<_> = samples.iter().collect();
        assert_eq!(
            distinct.len(),
            samples.len(),
            "a sample twice in epoch {}",
            summary.epoch
        );
        assert_eq!(samples.len(), (FILES - 1) as usize * 4 / 5, "a sample lost");
        if let (Some(before), Some(after)) = (self.epochs.last().and_then(|e| e.best), summary.best)
        {
            assert!(after.loss <= before.loss);
        }
        self.epochs.push(summary);
    }

    /// One thing that `id` could do next, if there is any.
    fn act(&mut self, id: WorkerId) -> Option<Event> {
        let fresh = self.random.next_u64() as f64 / u64::MAX as f64;
        let poison = self.poison;
        let worker = self.workers.get_mut(&id)?;
        if worker.ended || worker.dead {
            return None;
        }
        if let Some((generation, epoch, shard, chunks)) = &worker.plan {
            let steps = shard.local_counts.len() as u32;
            if worker.completed < steps.min(worker.granted) {
                let count = shard.local_counts[worker.completed as usize];
                let samples = &shard.samples[worker.offset..worker.offset + count as usize];
                self.trained.entry(*epoch).or_default().extend(samples);
                worker.offset += count as usize;
                worker.completed += 1;
                let loss_sum = if poison == Some(*epoch) {
                    f64::NAN
                } else {
                    count.into()
                };
                return Some(Event::Step {
                    worker: id,
                    report: StepReport {
                        generation: *generation,
                        epoch: *epoch,
                        completed: worker.completed,
                        loss_sum,
                        samples: count,
                        seconds: 0.1 + fresh,
                        phases: Phases::default(),
                    },
                });
            }
            if worker.completed == steps {
                let sums = chunks.iter().map(|chunk| ValidationSum {
                    chunk: chunk.index,
                    loss_sum: chunk.samples.len() as f64 * fresh,
                    correct: 1,
                    samples: chunk.samples.len() as u32,
                });
                let report = EpochReport {
                    generation: *generation,
                    epoch: *epoch,
                    loss_sum: shard.samples.len() as f64,
                    samples: shard.samples.len() as u32,
                    validation: sums.collect(),
                    phases: Phases::default(),
                };
                worker.plan = None;
                return Some(Event::EpochDone { worker: id, report });
            }
        }
        if worker.inbox.is_empty() {
            return None;
        }
        match worker.inbox.remove(0) {
            Command::Welcome => None,
            Command::Prepare { .. } => {
                // One file is bad, and whoever decodes it says so.
                Some(Event::Prepared {
                    worker: id,
                    bad: vec![(7, "truncated".to_owned())],
                })
            }
            Command::Assign {
                generation,
                rank: 0,
                store: None,
                ..
            } => {
                // Its own group is ready only after the others know the address.
                worker.inbox.insert(
                    0,
                    Command::Assign {
                        generation,
                        rank: 0,
                        world_size: 0,
                        store: Some(String::new()),
                        nccl: false,
                        bf16: false,
                    },
                );
                let address = "127.0.0.1:1".to_owned();
                Some(Event::StoreListening {
                    worker: id,
                    generation,
                    address,
                })
            }
            Command::Assign { generation, .. } => Some(Event::GroupReady {
                worker: id,
                generation,
            }),
            Command::Plan {
                generation,
                epoch,
                shard,
                validation,
                granted,
                ..
            } => {
                worker.plan = Some((generation, epoch, shard, validation));
                (worker.completed, worker.offset, worker.granted) = (0, 0, granted);
                None
            }
            Command::Grant { granted, .. } => {
                worker.granted = worker.granted.max(granted);
                None
            }
            Command::Verdict {
                improved, epoch, ..
            } => improved.then_some(Event::StateStored { epoch }),
            Command::Finish { generation, .. } => {
                worker.plan = None;
                Some(Event::Finished {
                    worker: id,
                    generation,
                })
            }
            Command::Shutdown { .. } => {
                worker.ended = true;
                None
            }
        }
    }

    fn join_all(&mut self) {
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.tell(Event::Joined {
                worker: id,
                host: "host".to_owned(),
                slot: Some(id.0 as u32),
            });
            let scan = Scan {
                fingerprint: "same".to_owned(),
                classes: vec!["a".to_owned(), "b".to_owned()],
                files: (0..FILES)
                    .map(|file| (format!("a/{file}.jpg"), 1))
                    .collect(),
                device: "cpu".to_owned(),
                bf16_in_silicon: false,
            };
            self.tell(Event::Scanned { worker: id, scan });
        }
    }

    /// Runs to the end; `trouble` may put in an event of its own before each step.
    fn play(&mut self, mut trouble: impl FnMut(&mut Self) -> Option<Event>) -> Outcome {
        self.join_all();
        for _ in 0..200_000 {
            if let Some(outcome) = &self.outcome {
                return outcome.clone();
            }
            if let Some(event) = trouble(self) {
                self.tell(event);
                continue;
            }
            let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
            let id = ids[self.random.below(ids.len() as u64) as usize];
            match self.act(id) {
                Some(event) => self.tell(event),
                None => self.tell(Event::Tick),
            }
        }
        panic!("the run did not end");
    }
}

fn schedules() -> u64 {
    std::env::var("SIMULATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(2_000)
}

#[test]
fn undisturbed_runs_end_by_the_rule() {
    for seed in 0..schedules() {
        let mut cluster = Cluster::new(seed);
        let outcome = cluster.play(|_| None);
        let expected = match cluster.epochs.last() {
            _ if cluster
                .poison
                .is_some_and(|at| at as usize > cluster.epochs.len()) =>
            {
                // A poisoned epoch never completes, unless the rule ended the run before it.
                [StopReason::NonFiniteLoss, StopReason::Patience].to_vec()
            }
            Some(last) if last.wait >= 2 => vec![StopReason::Patience],
            _ => vec![StopReason::MaxEpochs, StopReason::NonFiniteLoss],
        };
        assert!(
            expected.iter().any(|reason| outcome == Ok(*reason)),
            "seed {seed}: {outcome:?}"
        );
    }
}

#[test]
fn an_interrupt_at_any_moment_ends_the_run_in_order() {
    for seed in 0..schedules() {
        let mut cluster = Cluster::new(seed);
        let mut countdown = SplitMix64::keyed(&[seed, 2]).below(150);
        let outcome = cluster.play(|_| {
            countdown = countdown.checked_sub(1)?;
            (countdown == 0).then_some(Event::Interrupt)
        });
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_death_at_any_moment_is_named() {
    for seed in 0..schedules() {
        let mut cluster = Cluster::new(seed);
        cluster.poison = None;
        let mut random = SplitMix64::keyed(&[seed, 3]);
        let mut countdown = random.below(100) + 1;
        let victim = WorkerId(random.below(cluster.workers.len() as u64));
        let survivor_speaks_first = random.below(2) == 0;
        let outcome = cluster.play(|cluster| {
            countdown = countdown.checked_sub(1)?;
            if countdown == 1 && survivor_speaks_first && cluster.workers.len() > 1 {
                let other = WorkerId((victim.0 + 1) % cluster.workers.len() as u64);
                let message = "connection closed by peer".to_owned();
                return Some(Event::Failed {
                    worker: other,
                    kind: FailureKind::Collective,
                    message,
                });
            }
            (countdown == 0).then(|| {
                cluster.workers.get_mut(&victim).unwrap().dead = true;
                Event::Lost { worker: victim }
            })
        });
        match outcome {
            Err(RunError::WorkerLost { slot, .. }) => {
                assert_eq!(
                    slot,
                    Some(victim.0 as u32),
                    "seed {seed}: the wrong one is blamed"
                );
            }
            // It had finished, or the run had ended, before the death.
            Ok(_) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
}
