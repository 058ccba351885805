//! A run is one trace, from the coordinator to the ranks, and does not depend on who collects it.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "traces/collector.rs"]
mod collector;

use std::collections::{BTreeSet, HashMap, HashSet};

use collector::{Collector, Received};
use integration_tests::baseline::Baseline;
use integration_tests::{Ended, Run, SMALL, STEADY, STEADY_EPOCHS, kill};
use serde_json::Value;

/// Samples of an epoch of a run with the small settings.
const SAMPLES: f64 = 96.0;

/// The traces that the JSON lines of a log name: from when the run is known, each line does.
fn traces_in(log: &str) -> BTreeSet<String> {
    log.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .skip_while(|line| line["trace_id"].is_null())
        .map(|line| line["trace_id"].as_str().expect("a trace").to_owned())
        .collect()
}

/// A run of two workers, one of which is killed in the second epoch, and where its spans go.
fn run_with_a_loss(endpoint: &str, more: &[&str]) -> Ended {
    let endpoint = format!("--otlp-endpoint={endpoint}");
    let arguments = [&["--workers=2", &endpoint], SMALL, STEADY, more].concat();
    let mut run = Run::start_with(&arguments, |command| {
        command.env("RUST_LOG", "info");
    });
    run.until("the second epoch", |run| run.steps() >= 8);
    kill(run.workers()[1]);
    run.wait().succeeded().left_no_process()
}

#[test]
fn a_run_is_one_trace_down_to_its_ranks() {
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    let ended = run_with_a_loss(&endpoint, &["--log-format=json"]);

    let spans = collector.received();
    let of = |name: &str| -> Vec<&Received> {
        let named = spans.iter().filter(|received| received.span.name == name);
        named.collect()
    };
    let ids: HashSet<_> = spans.iter().map(|of| of.span.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len(), "{spans:#?}");
    let traces: BTreeSet<String> = spans
        .iter()
        .map(|of| {
            of.span
                .trace_id
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        })
        .collect();
    assert_eq!(traces.len(), 1, "{spans:#?}");
    let workers = ["worker-0.log", "worker-1.log"]
        .map(|log| std::fs::read_to_string(ended.path().join("logs").join(log)).expect("a log"));
    for log in workers.iter().chain([&ended.output]) {
        assert_eq!(traces_in(log), traces, "{log}");
    }

    let [run] = of("run")[..] else {
        panic!("one run: {spans:#?}");
    };
    assert!(run.span.parent_span_id.is_empty(), "{run:#?}");
    assert_eq!(run.text("stop_reason").as_deref(), Some("max_epochs"));

    let epochs: HashMap<_, _> = of("epoch")
        .into_iter()
        .map(|epoch| (epoch.span.span_id.clone(), epoch))
        .collect();
    let mut judged = Vec::new();
    for epoch in epochs.values() {
        assert_eq!(epoch.span.parent_span_id, run.span.span_id, "{epoch:#?}");
        assert_eq!(epoch.service, "finetune-coordinator");
        judged.extend(
            epoch
                .number("validation_loss")
                .and_then(|_| epoch.number("epoch")),
        );
    }
    judged.sort_by(f64::total_cmp);
    let all: Vec<f64> = (1..=STEADY_EPOCHS as u32).map(f64::from).collect();
    assert_eq!(judged, all, "{epochs:#?}");

    let [recovery] = of("recovery")[..] else {
        panic!("one recovery: {spans:#?}");
    };
    assert_eq!(recovery.span.parent_span_id, run.span.span_id);
    assert_eq!(recovery.text("cause").as_deref(), Some("worker_died"));
    let took = recovery.span.end_time_unix_nano - recovery.span.start_time_unix_nano;
    let seconds = recovery.number("seconds").expect("it took a while");
    assert!((took as f64 / 1e9 - seconds).abs() < 1e-3 && took > 0);
    let broken: Vec<_> = epochs
        .values()
        .filter(|of| of.failure().is_some())
        .collect();
    let [broken] = broken[..] else {
        panic!("one broken epoch: {epochs:#?}");
    };
    assert_eq!(broken.failure(), Some("worker_died"));
    assert_eq!(
        broken.span.end_time_unix_nano,
        recovery.span.start_time_unix_nano
    );
    assert!(recovery.number("generation") > broken.number("generation"));

    let mut parts: HashMap<_, Vec<&Received>> = HashMap::new();
    for rank in of("rank") {
        assert_eq!(rank.service, "finetune-worker");
        let epoch = epochs.get(&rank.span.parent_span_id).expect("its epoch");
        for key in ["epoch", "generation"] {
            assert_eq!(rank.number(key), epoch.number(key), "{rank:#?}");
        }
        parts.entry(&epoch.span.span_id).or_default().push(rank);
    }
    for (id, epoch) in &epochs {
        let ranks = parts.remove(id).unwrap_or_default();
        if epoch.failure().is_some() {
            // Of the killed one nothing is heard.
            assert_eq!(ranks.len(), 1, "{ranks:#?}");
            continue;
        }
        let numbers: BTreeSet<_> = ranks
            .iter()
            .filter_map(|of| of.number("rank"))
            .map(|n| n as u32)
            .collect();
        assert_eq!(numbers, BTreeSet::from([0, 1]), "{ranks:#?}");
        if epoch.number("first_step") == Some(0.0) {
            let samples: f64 = ranks.iter().filter_map(|of| of.number("samples")).sum();
            assert_eq!(samples, SAMPLES, "{ranks:#?}");
        }
        for rank in ranks {
            assert!(rank.span.end_time_unix_nano <= epoch.span.end_time_unix_nano);
            assert!(
                rank.number("forward_backward_seconds") > Some(0.0),
                "{rank:#?}"
            );
        }
    }
}

#[test]
fn without_its_collector_a_run_is_the_same() {
    // A port that was free a moment ago.
    let nobody = Collector::start().address;
    let ended = run_with_a_loss(&format!("http://{nobody}"), &[]);
    Baseline::of(STEADY).assert_same(&ended);
    let said = |log: &str| log.matches("takes no traces").count();
    assert_eq!(said(&ended.output), 1, "{}", ended.output);
    let survivor = ended.path().join("logs").join("worker-0.log");
    let survivor = std::fs::read_to_string(survivor).expect("a log");
    assert_eq!(said(&survivor), 1, "{survivor}");
}
