//! Names obey the conventions, series exist from the start, facts reach their series.

use coordinator_core::early_stopping::{Best, Standing};
use coordinator_core::event::{
    Backend, BadFile, ComputeType, FinishedEpoch, Location, LossCause, MemberInfo, Phases,
    Position, Ranked, StepReport, StopReason,
};
use coordinator_core::{Fact, WorkerId};
use prometheus::TextEncoder;

use super::*;
use crate::observe::view::RunView;

fn facts() -> RunFacts {
    RunFacts {
        run: "one".into(),
        dataset: "demo".into(),
        workers: 2,
        epochs: 15,
        patience: 3,
    }
}

fn scrape(registry: &Registry) -> Vec<String> {
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn expect(lines: &[String], expected: &[&str]) {
    for expected in expected {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} is missing in {lines:#?}"
        );
    }
}

#[test]
fn names_obey_the_conventions() {
    for spec in TABLE {
        let name = spec.name;
        let words = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(
            words(name) && spec.labels.iter().all(|label| words(label)),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            spec.kind == Kind::Counter,
            "{name}"
        );
        if name.contains("duration") || name.contains("timestamp") {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        for wrong in ["_ms", "_s", "_percent", "_millis"] {
            assert!(!name.ends_with(wrong), "{name}");
        }
        assert!(
            !name.starts_with(PREFIX) && spec.help.ends_with('.'),
            "{name}"
        );
    }
}

#[test]
fn every_series_exists_before_anything_happens() {
    let registry = Registry::new();
    Metrics::new(&registry, &facts()).unwrap();
    let families = registry.gather();
    // The holders of the ranks are not known before a group has formed.
    let later = |spec: &&MetricSpec| spec.name == "worker_info";
    for spec in TABLE.iter().filter(|spec| !later(spec)) {
        let name = spec.full_name();
        let family = families.iter().find(|family| family.name() == name);
        let family = family.unwrap_or_else(|| panic!("{name} has no series"));
        for series in family.get_metric() {
            let mut labels: Vec<_> = series
                .get_label()
                .iter()
                .map(|label| label.name())
                .collect();
            let mut expected = spec.labels.to_vec();
            labels.sort_unstable();
            expected.sort_unstable();
            assert_eq!(labels, expected, "{name}");
        }
    }
    assert_eq!(families.len(), TABLE.len() - 1);

    let lines = scrape(&registry);
    let expected = [
        "finetune_run_state{state=\"waiting\"} 1",
        "finetune_run_state{state=\"failed\"} 0",
        "finetune_stop_reason_info{reason=\"patience\"} 0",
        "finetune_loss{split=\"validation\"} NaN",
        "finetune_learning_rate{group=\"layer4\"} 0",
        "finetune_samples_total{split=\"train\"} 0",
        "finetune_workers{state=\"expected\"} 2",
        "finetune_workers{state=\"lost\"} 0",
        "finetune_step_duration_seconds_count{rank=\"1\"} 0",
        "finetune_phase_duration_seconds_count{phase=\"allreduce_wait\",rank=\"1\"} 0",
        "finetune_phase_duration_seconds_bucket{phase=\"validation\",rank=\"0\",le=\"16.384\"} 0",
        "finetune_early_stop_patience_epochs 3",
        "finetune_epochs_target 15",
        "finetune_decode_errors_total 0",
    ];
    expect(&lines, &expected);
}

/// What a run of two ranks shows that has validated its second epoch and lost a worker.
const SHOWN: &[&str] = &[
    "finetune_run_state{state=\"waiting\"} 0",
    "finetune_run_state{state=\"validating\"} 1",
    "finetune_epoch 2",
    "finetune_learning_rate{group=\"fc\"} 0.001",
    "finetune_steps_total 1",
    "finetune_samples_total{split=\"train\"} 48",
    "finetune_samples_total{split=\"validation\"} 20",
    "finetune_step_duration_seconds_sum{rank=\"1\"} 0.5",
    "finetune_phase_duration_seconds_sum{phase=\"forward_backward\",rank=\"1\"} 0.25",
    "finetune_phase_duration_seconds_sum{phase=\"allreduce_wait\",rank=\"1\"} 0.125",
    "finetune_phase_duration_seconds_count{phase=\"validation\",rank=\"1\"} 1",
    "finetune_phase_duration_seconds_sum{phase=\"validation\",rank=\"1\"} 2",
    "finetune_loss{split=\"train\"} 0.75",
    "finetune_loss{split=\"validation\"} 0.5",
    "finetune_accuracy_ratio{split=\"validation\"} 0.875",
    "finetune_best_epoch 1",
    "finetune_best_validation_loss 0.25",
    "finetune_early_stop_wait_epochs 1",
    "finetune_workers{state=\"lost\"} 1",
    "finetune_workers_lost_total 1",
    "finetune_generation 2",
    "finetune_worker_info{device=\"cuda:0\",gpu_uuid=\"GPU-b\",host=\"b\",rank=\"1\"} 1",
    "finetune_worker_last_heartbeat_timestamp_seconds{rank=\"1\"} 1002",
    "finetune_epoch_steps 7",
    "finetune_epoch_steps_target 7",
    "finetune_checkpoint_lag_steps 14",
    "finetune_recovery_duration_seconds_sum{cause=\"worker_died\"} 1.5",
    "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Upload\",\
     grpc_service=\"trainer.v1.Trainer\",grpc_type=\"client_stream\"} 1",
    "grpc_server_handling_seconds_sum{grpc_method=\"Upload\",\
     grpc_service=\"trainer.v1.Trainer\",grpc_type=\"client_stream\"} 0.25",
    "finetune_driver_queue_length 4",
    "finetune_driver_events_total 1",
    "finetune_driver_busy_seconds_total 0.5",
    "finetune_decode_errors_total 1",
    "finetune_stop_reason_info{reason=\"patience\"} 1",
];

fn group(generation: u64, hosts: &[&str]) -> Fact {
    let holder = |(rank, host): (usize, &&str)| Ranked {
        worker: WorkerId(rank as u64),
        host: (*host).to_owned(),
        device: "cuda:0".to_owned(),
        gpu_uuid: format!("GPU-{host}"),
    };
    Fact::GroupFormed {
        generation,
        ranks: hosts.iter().enumerate().map(holder).collect(),
        backend: Backend::Nccl,
        precision: ComputeType::Bf16,
    }
}

/// A rank makes the last of 7 steps.
fn step(rank: u32) -> Fact {
    let report = StepReport {
        generation: 2,
        epoch: 2,
        completed: 7,
        loss_sum: 18.0,
        samples: 24,
        seconds: 0.5,
        phases: PHASES,
    };
    Fact::Step { rank, report }
}

const PHASES: Phases = Phases {
    data_wait: 0.0,
    forward_backward: 0.25,
    allreduce_wait: 0.125,
    optimizer: 0.0625,
    validation: 2.0,
};

fn facts_of_a_run() -> Vec<Fact> {
    let path = "a/1.jpg".to_owned();
    let error = "empty".to_owned();
    let epoch = FinishedEpoch {
        epoch: 2,
        validation_loss: 0.5,
        validation_accuracy: 0.875,
        ..FinishedEpoch::default()
    };
    vec![
        Fact::BadFiles(vec![BadFile { path, error }]),
        group(2, &["a", "b"]),
        Fact::Recovered {
            cause: OutageCause::WorkerDied,
            generation: 2,
            position: Position::start_of(2),
            world_size: 2,
            seconds: 1.5,
            steps_lost: 0,
        },
        Fact::EpochStarted {
            epoch: 2,
            completed: 0,
            steps: 7,
            world_size: 2,
            lrs: [0.0, 0.0, 0.0, 0.0, 0.0, 1e-3],
        },
        step(0),
        step(1),
        Fact::EpochEnded {
            epoch,
            validated: 20,
            ranks: vec![PHASES; 2],
            stopping: Standing {
                best: Some(Best {
                    epoch: 1,
                    loss: 0.25,
                }),
                wait: 1,
            },
        },
        Fact::Lost {
            member: MemberInfo {
                worker: WorkerId(1),
                host: "b".to_owned(),
                rank: Some(1),
                local_rank: None,
            },
            location: Location::Ending,
            cause: LossCause::SessionBroke,
        },
    ]
}

#[test]
fn facts_reach_their_series_and_add_none() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &facts()).unwrap();
    let before = scrape(&registry).len();
    let mut view = RunView::new(15);
    for fact in facts_of_a_run() {
        view.apply(&fact);
        metrics.apply(&fact, &view);
    }
    metrics.set_workers(WorkerState::Lost, 1);
    metrics.heard(1, 1002.0);
    metrics.answered(Method::Upload, Code::Ok, 0.25);
    metrics.drove(1, 0.5, 4);
    metrics.set_stop_reason(StopReason::Patience.label());
    let lines = scrape(&registry);
    // The two of `worker_info`, whose labels are not known before.
    assert_eq!(lines.len(), before + 2);
    expect(&lines, SHOWN);
}

#[test]
fn a_roll_back_takes_the_best_epoch_back() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &facts()).unwrap();
    let view = RunView::new(15);
    facts_of_a_run()
        .iter()
        .for_each(|fact| metrics.apply(fact, &view));
    let stopping = Standing::default();
    let position = Position::start_of(1);
    metrics.apply(&Fact::RolledBack { position, stopping }, &view);
    let lines = scrape(&registry);
    expect(
        &lines,
        &["finetune_best_epoch 0", "finetune_best_validation_loss NaN"],
    );
    expect(&lines, &["finetune_early_stop_wait_epochs 0"]);
}

#[test]
fn a_rank_that_is_gone_takes_its_series_with_it() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &facts()).unwrap();
    let of_rank = |rank: &str| {
        let label = format!("rank=\"{rank}\"");
        let lines = scrape(&registry);
        lines.iter().filter(|line| line.contains(&label)).count()
    };
    let form = |generation, hosts: &[&str]| {
        metrics.apply(&group(generation, hosts), &RunView::new(15));
        ["0", "1", "2"].map(of_rank)
    };
    let [each, ..] = form(1, &["a", "b", "c"]);
    assert!(each > 0);
    assert_eq!(form(1, &["a", "b", "c"]), [each, each, each]);
    assert_eq!(form(2, &["c"]), [each, 0, 0]);
    let lines = scrape(&registry);
    let retained = lines.iter().filter(|line| line.contains("GPU-"));
    assert_eq!(retained.count(), 1, "{lines:#?}");
    assert_eq!(form(3, &["c", "a"]), [each, each, 0]);
}
