//! Names obey the conventions, series exist from the start, setters reach their series.

use coordinator_core::event::StopReason;
use prometheus::TextEncoder;
use tonic::Code;

use super::*;

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
            !name.starts_with(table::PREFIX) && spec.help.ends_with('.'),
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
    let later = |spec: &&MetricSpec| spec.name == table::WORKER_INFO.name;
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
    for expected in [
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
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} is missing in {lines:#?}"
        );
    }
}

#[test]
fn setters_reach_their_series_and_add_none() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &facts()).unwrap();
    let before = scrape(&registry).len();
    metrics.set_run_state(RunState::Training);
    metrics.begin_epoch(2, [0.0, 0.0, 0.0, 0.0, 0.0, 1e-3]);
    metrics.step_done(32, 1000.5);
    metrics.step_done(16, 1001.5);
    let seconds = StepSeconds {
        step: 0.5,
        data_wait: 0.0,
        forward_backward: 0.25,
        allreduce_wait: 0.125,
        optimizer: 0.0625,
    };
    metrics.rank_step(1, seconds);
    metrics.rank_validation(0, 2.0, 20);
    metrics.set_training(0.75, 64.0);
    metrics.set_validation(0.5, 0.875);
    metrics.set_best(1, 0.25, 1);
    metrics.set_workers(WorkerState::Lost, 1);
    let cpu = RankFacts {
        host: "a".into(),
        device: "cpu".into(),
        gpu_uuid: String::new(),
    };
    metrics.begin_generation(2, &[cpu.clone(), cpu], 1000.0);
    metrics.heard(1, 1002.0);
    metrics.set_epoch_steps(3, 7);
    metrics.set_checkpoint_lag(10);
    metrics.recovered(OutageCause::WorkerDied, 1.5);
    metrics.traffic().answered(Method::Upload, Code::Ok, 0.25);
    metrics.traffic().drove(0.5, 4);
    metrics.add_decode_errors(3);
    metrics.set_stop_reason(StopReason::Patience.label());
    let lines = scrape(&registry);
    // The two of `worker_info`, whose labels are not known before.
    assert_eq!(lines.len(), before + 2);
    for expected in [
        "finetune_run_state{state=\"waiting\"} 0",
        "finetune_run_state{state=\"training\"} 1",
        "finetune_epoch 2",
        "finetune_learning_rate{group=\"fc\"} 0.001",
        "finetune_steps_total 2",
        "finetune_samples_total{split=\"train\"} 48",
        "finetune_samples_total{split=\"validation\"} 20",
        "finetune_last_step_timestamp_seconds 1001.5",
        "finetune_step_duration_seconds_sum{rank=\"1\"} 0.5",
        "finetune_phase_duration_seconds_sum{phase=\"forward_backward\",rank=\"1\"} 0.25",
        "finetune_phase_duration_seconds_sum{phase=\"allreduce_wait\",rank=\"1\"} 0.125",
        "finetune_phase_duration_seconds_sum{phase=\"optimizer\",rank=\"1\"} 0.0625",
        "finetune_phase_duration_seconds_sum{phase=\"validation\",rank=\"0\"} 2",
        "finetune_loss{split=\"train\"} 0.75",
        "finetune_images_per_second 64",
        "finetune_loss{split=\"validation\"} 0.5",
        "finetune_accuracy_ratio{split=\"validation\"} 0.875",
        "finetune_best_epoch 1",
        "finetune_best_validation_loss 0.25",
        "finetune_early_stop_wait_epochs 1",
        "finetune_workers{state=\"lost\"} 1",
        "finetune_generation 2",
        "finetune_worker_info{device=\"cpu\",gpu_uuid=\"\",host=\"a\",rank=\"1\"} 1",
        "finetune_worker_last_heartbeat_timestamp_seconds{rank=\"0\"} 1000",
        "finetune_worker_last_heartbeat_timestamp_seconds{rank=\"1\"} 1002",
        "finetune_epoch_steps 3",
        "finetune_epoch_steps_target 7",
        "finetune_checkpoint_lag_steps 10",
        "finetune_recovery_duration_seconds_sum{cause=\"worker_died\"} 1.5",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Upload\",\
         grpc_service=\"trainer.v1.Trainer\",grpc_type=\"client_stream\"} 1",
        "grpc_server_handling_seconds_sum{grpc_method=\"Upload\",\
         grpc_service=\"trainer.v1.Trainer\",grpc_type=\"client_stream\"} 0.25",
        "finetune_driver_queue_length 4",
        "finetune_driver_events_total 1",
        "finetune_driver_busy_seconds_total 0.5",
        "finetune_decode_errors_total 3",
        "finetune_stop_reason_info{reason=\"patience\"} 1",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} is missing in {lines:#?}"
        );
    }
}

#[test]
fn a_rank_that_is_gone_takes_its_series_with_it() {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry, &facts()).unwrap();
    let holder = |host: &str| RankFacts {
        host: host.into(),
        device: "cuda:0".into(),
        gpu_uuid: format!("GPU-{host}"),
    };
    let of_rank = |rank: &str| {
        let lines = scrape(&registry);
        let label = format!("rank=\"{rank}\"");
        lines.iter().filter(|line| line.contains(&label)).count()
    };
    metrics.begin_generation(1, &[holder("a"), holder("b"), holder("c")], 1.0);
    let each = of_rank("0");
    assert!(each > 0);
    assert_eq!((of_rank("1"), of_rank("2")), (each, each));
    metrics.begin_generation(2, &[holder("c")], 2.0);
    assert_eq!((of_rank("0"), of_rank("1"), of_rank("2")), (each, 0, 0));
    let lines = scrape(&registry);
    let retained = lines.iter().filter(|line| line.contains("GPU-"));
    assert_eq!(retained.count(), 1, "{lines:#?}");
    metrics.begin_generation(3, &[holder("c"), holder("a")], 3.0);
    assert_eq!((of_rank("0"), of_rank("1"), of_rank("2")), (each, each, 0));
}
