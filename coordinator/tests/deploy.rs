//! Dashboards and rules in `deploy/` use metrics that the coordinator exports, and all of these are on
//! a dashboard.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coordinator::observe::metrics::{GRPC_PREFIX, Kind, PREFIX, TABLE};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn files(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            into.push((path, text));
        }
    }
}

/// The words that begin like a metric of this project. The name of a recorded series, which has
/// colons, is one word.
fn names(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !part(c))
        .filter(|word| {
            [PREFIX, GRPC_PREFIX]
                .iter()
                .any(|prefix| word.starts_with(&format!("{prefix}_")))
        })
        .map(str::to_owned)
        .collect()
}

/// The names of all series of the metrics in the table.
fn known() -> BTreeSet<String> {
    let series = |kind| match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"][..],
        Kind::Counter | Kind::Gauge => &[""],
    };
    TABLE
        .iter()
        .flat_map(|spec| {
            let name = spec.full_name();
            series(spec.kind)
                .iter()
                .map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

#[test]
fn every_metric_in_use_exists() {
    let (mut all, known) = (Vec::new(), known());
    files(&deploy(), &mut all);
    let mut used = 0;
    for (path, text) in all {
        for name in names(&text) {
            used += 1;
            assert!(known.contains(&name), "{}: {name}", path.display());
        }
    }
    assert!(used > TABLE.len(), "only {used} names were found");
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let mut dashboards = Vec::new();
    files(&deploy().join("grafana/dashboards"), &mut dashboards);
    let shown: String = dashboards.into_iter().map(|(_, text)| text).collect();
    // A recorded series shows the metrics that it is computed from.
    let recorded =
        std::fs::read_to_string(deploy().join("prometheus/rules/recording.yml")).unwrap();
    let shown = names(&(shown + &recorded));
    for spec in TABLE {
        let name = spec.full_name();
        assert!(
            shown.iter().any(|series| *series == name
                || series
                    .strip_prefix(&name)
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))),
            "{name} is on no dashboard"
        );
    }
}
