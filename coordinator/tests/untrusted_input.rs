//! Configuration and messages from outside: invalid ones are refused with one line, without a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use coordinator::app::spec;
use coordinator::config::{RunConfig, Settings, Sources};
use coordinator::rpc::convert;
use coordinator_core::event::WorkerId;
use coordinator_core::{Action, Command, Event, Run};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use proto::v1;
use v1::worker_message::Message as Up;

fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config");
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn load(file: &[u8], variable: Option<(&str, String)>) -> Result<RunConfig, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path),
        environment: variable
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect(),
        flags: Settings::default(),
        root: directory.path().to_owned(),
    };
    RunConfig::load(&sources)
        .map(|loaded| loaded.config)
        .map_err(|error| error.to_string())
}

type Damage = Vec<(Index, u8)>;

fn damage() -> impl Strategy<Value = Damage> {
    prop::collection::vec((any::<Index>(), any::<u8>()), 0..6)
}

fn damaged(mut bytes: Vec<u8>, damage: &Damage, keep: f64) -> Vec<u8> {
    for (place, byte) in damage {
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
    }
    bytes.truncate((bytes.len() as f64 * keep) as usize);
    bytes
}

#[test]
fn the_corpus_is_read_or_refused_in_one_line() {
    for file in corpus() {
        if let Err(message) = load(&file, None) {
            assert!(!message.contains('\n'), "{message}");
        }
    }
}

/// The messages of a correct worker, in order.
fn valid_messages() -> Vec<Up> {
    let position = v1::Position {
        epoch: 1,
        completed: 1,
    };
    vec![
        Up::Scanned(v1::Scanned {
            fingerprint: "f".to_owned(),
            classes: vec!["a".to_owned(), "b".to_owned()],
            files: (0..20)
                .map(|at| v1::FileEntry {
                    path: format!("a/{at}.jpg"),
                    size: at,
                })
                .collect(),
            device: "cpu".to_owned(),
            ..Default::default()
        }),
        Up::Preparing(v1::Preparing { done: 3 }),
        Up::Prepared(v1::Prepared {
            bad: vec![v1::BadFile {
                sample: 1,
                reason: "empty".to_owned(),
            }],
        }),
        Up::StoreListening(v1::StoreListening {
            generation: 1,
            port: 1,
            host: "node-a".to_owned(),
        }),
        Up::GroupReady(v1::GroupReady { generation: 1 }),
        Up::StepReport(v1::StepReport {
            generation: 1,
            epoch: 1,
            completed: 1,
            samples: 4,
            seconds: 0.1,
            loss_sum: 4.0,
            phases: Some(v1::PhaseSeconds::default()),
        }),
        Up::Heartbeat(v1::Heartbeat {
            generation: 1,
            epoch: 1,
            completed: 1,
            phase: v1::Phase::Backward.into(),
            seconds: 0.5,
        }),
        Up::EpochReport(v1::EpochReport {
            generation: 1,
            epoch: 1,
            loss_sum: 15.0,
            samples: 15,
            validation: vec![v1::ValidationSum {
                chunk: 0,
                loss_sum: 4.0,
                correct: 1,
                samples: 4,
            }],
            phases: None,
        }),
        Up::GenerationAborted(v1::GenerationAborted {
            generation: 1,
            retained: Some(position),
        }),
        Up::Failure(v1::Failure {
            kind: v1::FailureKind::Collective.into(),
            message: "connection closed".to_owned(),
        }),
        Up::Draining(v1::Draining {}),
        Up::Finished(v1::Finished { generation: 1 }),
    ]
}

fn encoded(message: Up) -> Vec<u8> {
    v1::WorkerMessage {
        message: Some(message),
    }
    .encode_to_vec()
}

fn small_run() -> Run {
    let file = b"data = 'x'\nno-spawn = true\nglobal-batch = 4\nepochs = 2\nmax-workers = 2\n";
    Run::new(spec::recipe(&load(file, None).unwrap()))
}

/// Passes a message to the run and checks that it does not cause very many actions.
fn feed(run: &mut Run, now: u64, worker: u64, bytes: &[u8]) -> Vec<Action> {
    let Ok(v1::WorkerMessage {
        message: Some(message),
    }) = v1::WorkerMessage::decode(bytes)
    else {
        return Vec::new();
    };
    let Some(event) = convert::event(WorkerId(worker), "127.0.0.1", message) else {
        return Vec::new();
    };
    let actions = run.step(Duration::from_millis(now), event);
    assert!(actions.len() < 200, "{} actions", actions.len());
    actions
}

fn joined(run: &mut Run, worker: u64) {
    let event = Event::Joined {
        worker: WorkerId(worker),
        host: "host".to_owned(),
        pid: 100 + worker as u32,
        instance: worker,
        local_rank: None,
    };
    run.step(Duration::ZERO, event);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_configuration_panics(
        which in any::<Index>(), damage in damage(), keep in 0.3..1.2f64,
        variable in "[A-Z_]{0,12}", value in "\\PC{0,12}",
    ) {
        let corpus = corpus();
        let file = damaged(corpus[which.index(corpus.len())].clone(), &damage, keep);
        let variable = format!("FINETUNE_{variable}");
        if let Err(message) = load(&file, Some((&variable, value))) {
            prop_assert!(message.lines().count() == 1, "{}", message);
        }
    }

    /// One worker is correct; a second sends anything at any time, with the id of either.
    #[test]
    fn no_message_panics_the_run(
        garbage in prop::collection::vec(
            (any::<Index>(), damage(), 0.5..1.1f64, 0u64..3, 0usize..12), 1..30,
        ),
    ) {
        let mut run = small_run();
        joined(&mut run, 0);
        joined(&mut run, 1);
        for (at, message) in valid_messages().into_iter().enumerate() {
            feed(&mut run, at as u64 * 100, 0, &encoded(message));
            for (which, damage, keep, worker, when) in &garbage {
                if *when == at {
                    let messages = valid_messages();
                    let message = messages[which.index(messages.len())].clone();
                    let bytes = damaged(encoded(message), damage, *keep);
                    feed(&mut run, at as u64 * 100, *worker, &bytes);
                }
            }
            run.step(Duration::from_secs(at as u64), Event::Tick);
        }
    }
}

#[test]
fn a_correct_worker_gets_a_plan() {
    let mut run = small_run();
    joined(&mut run, 0);
    let actions: Vec<Action> = valid_messages()
        .into_iter()
        .take(5)
        .flat_map(|message| feed(&mut run, 1, 0, &encoded(message)))
        .collect();
    let planned = |action: &Action| matches!(action, Action::Send(_, Command::Plan { .. }));
    assert!(actions.iter().any(planned), "{actions:?}");
}
