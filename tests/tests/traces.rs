//! A run is one trace, from the coordinator to the ranks, and does not depend on the collector.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "traces/collector.rs"]
mod collector;

use std::collections::{BTreeSet, HashMap};

use collector::{Collector, Received};
use integration_tests::baseline::Baseline;
use integration_tests::{Ended, Run, SMALL, STEADY, STEADY_EPOCHS, kill};
use serde_json::Value;

/// The training samples of an epoch with the settings of [`SMALL`].
const SAMPLES: f64 = 96.0;

/// The trace ids in the JSON lines of a log: all lines have one once the run is known.
fn traces_in(log: &str) -> BTreeSet<String> {
    log.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .skip_while(|line| line["trace_id"].is_null())
        .map(|line| line["trace_id"].as_str().expect("a trace").to_owned())
        .collect()
}

/// A run that exports spans to `endpoint`, and one of whose two workers is killed in the second
/// epoch.
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

/// The spans of one run, by the id of each.
struct Spans(HashMap<Vec<u8>, Received>);

impl Spans {
    fn new(received: Vec<Received>) -> Self {
        let count = received.len();
        let spans = received.into_iter();
        let spans: HashMap<_, _> = spans.map(|of| (of.span.span_id.clone(), of)).collect();
        assert_eq!(spans.len(), count, "two spans have the same id: {spans:#?}");
        Self(spans)
    }

    fn named(&self, name: &str) -> Vec<&Received> {
        let named = self
            .0
            .values()
            .filter(|received| received.span.name == name);
        named.collect()
    }

    fn only(&self, name: &str) -> &Received {
        let [only] = self.named(name)[..] else {
            panic!("not one span `{name}`: {:#?}", self.0);
        };
        only
    }

    fn trace_ids(&self) -> BTreeSet<String> {
        let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.values().map(|of| hex(&of.span.trace_id)).collect()
    }
}

#[test]
fn a_run_is_one_trace_down_to_its_ranks() {
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    let ended = run_with_a_loss(&endpoint, &["--log-format=json"]);
    let spans = Spans::new(collector.received());
    assert_json(&ended.output);

    let traces = spans.trace_ids();
    assert_eq!(traces.len(), 1, "{traces:?}");
    let logs = ["worker-0.log", "worker-1.log"].map(|log| ended.path().join("logs").join(log));
    let logs = logs.map(|log| std::fs::read_to_string(log).expect("a log"));
    for log in logs.iter().chain([&ended.output]) {
        assert_eq!(traces_in(log), traces, "{log}");
    }
    epochs_are_parts_of_the_run(&spans);
    the_recovery_begins_where_an_epoch_broke(&spans);
    ranks_are_parts_of_their_epochs(&spans);
}

/// The output has one format, so that whatever collects it can read every line.
fn assert_json(output: &str) {
    assert!(output.contains("finished all of"), "{output}");
    for line in output.lines() {
        let read = serde_json::from_str::<serde_json::Value>(line);
        assert!(read.is_ok(), "`{line}` in:\n{output}");
    }
}

#[test]
fn the_last_error_has_the_format_of_the_log() {
    let missing = ["--data=/no/such/folder", "--log-format=json"];
    let ended = Run::small(1, &missing).wait();
    let last = ended.output.lines().last().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).expect("a line of JSON");
    assert_eq!(last["level"], "ERROR", "{}", ended.output);
    assert!(last.to_string().contains("/no/such/folder"), "{last}");
    assert_eq!(ended.code, 3, "{}", ended.output);
}

fn epochs_are_parts_of_the_run(spans: &Spans) {
    let run = spans.only("run");
    assert!(run.span.parent_span_id.is_empty(), "{run:#?}");
    assert_eq!(run.text("stop_reason").as_deref(), Some("max_epochs"));
    let mut validated = Vec::new();
    for epoch in spans.named("epoch") {
        assert_eq!(epoch.span.parent_span_id, run.span.span_id, "{epoch:#?}");
        assert_eq!(epoch.service, "finetune-coordinator");
        if epoch.number("validation_loss").is_some() {
            validated.extend(epoch.number("epoch"));
        }
    }
    validated.sort_by(f64::total_cmp);
    let all: Vec<f64> = (1..=STEADY_EPOCHS as u32).map(f64::from).collect();
    assert_eq!(validated, all);
}

fn the_recovery_begins_where_an_epoch_broke(spans: &Spans) {
    let (run, recovery) = (spans.only("run"), spans.only("recovery"));
    assert_eq!(recovery.span.parent_span_id, run.span.span_id);
    assert_eq!(recovery.text("cause").as_deref(), Some("worker_died"));
    let took = recovery.span.end_time_unix_nano - recovery.span.start_time_unix_nano;
    let seconds = recovery.number("seconds").expect("a duration");
    assert!((took as f64 / 1e9 - seconds).abs() < 1e-3 && took > 0);
    let mut epochs = spans.named("epoch");
    epochs.retain(|epoch| epoch.failure().is_some());
    let [broken] = epochs[..] else {
        panic!("not one broken epoch: {epochs:#?}");
    };
    assert_eq!(broken.failure(), Some("worker_died"));
    let broke_at = broken.span.end_time_unix_nano;
    assert_eq!(broke_at, recovery.span.start_time_unix_nano);
    assert!(recovery.number("generation") > broken.number("generation"));
}

fn ranks_are_parts_of_their_epochs(spans: &Spans) {
    let mut ranks: HashMap<_, Vec<&Received>> = HashMap::new();
    for rank in spans.named("rank") {
        assert_eq!(rank.service, "finetune-worker");
        let epoch = spans.0.get(&rank.span.parent_span_id).expect("its epoch");
        assert_eq!(epoch.span.name, "epoch");
        for key in ["epoch", "generation"] {
            assert_eq!(rank.number(key), epoch.number(key), "{rank:#?}");
        }
        assert!(
            epoch.failure().is_some()
                || rank.span.end_time_unix_nano <= epoch.span.end_time_unix_nano
        );
        ranks.entry(&epoch.span.span_id).or_default().push(rank);
    }
    for epoch in spans.named("epoch") {
        let ranks = ranks.remove(&epoch.span.span_id).unwrap_or_default();
        if epoch.failure().is_some() {
            // The killed worker sends no span.
            assert_eq!(ranks.len(), 1, "{ranks:#?}");
            continue;
        }
        let numbers = ranks.iter().filter_map(|of| of.number("rank"));
        let numbers: BTreeSet<_> = numbers.map(|number| number as u32).collect();
        assert_eq!(numbers, BTreeSet::from([0, 1]), "{ranks:#?}");
        if epoch.number("first_step") == Some(0.0) {
            let samples: f64 = ranks.iter().filter_map(|of| of.number("samples")).sum();
            assert_eq!(samples, SAMPLES, "{ranks:#?}");
        }
        for rank in ranks {
            let seconds = rank.number("forward_backward_seconds");
            assert!(seconds > Some(0.0), "{rank:#?}");
        }
    }
}

#[test]
fn without_its_collector_a_run_is_the_same() {
    // The collector is dropped at once, so that nothing listens at its address.
    let address = Collector::start().address;
    let ended = run_with_a_loss(&format!("http://{address}"), &[]);
    Baseline::of(STEADY).assert_same(&ended);
    let warnings = |log: &str| log.matches("takes no traces").count();
    assert_eq!(warnings(&ended.output), 1, "{}", ended.output);
    let survivor = ended.path().join("logs").join("worker-0.log");
    let survivor = std::fs::read_to_string(survivor).expect("a log");
    assert_eq!(warnings(&survivor), 1, "{survivor}");
}
