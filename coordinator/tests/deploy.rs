//! What the files in `deploy/` ask for is what the coordinator shows: no name there is unknown
//! here, and no metric here is without a panel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coordinator::observe::metrics::{Kind, PREFIX, TABLE};

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

/// Whatever looks like the name of a metric of this project. Recorded series have colons, and
/// count as one word.
fn names(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !part(c))
        .filter(|word| word.starts_with(&format!("{PREFIX}_")))
        .map(str::to_owned)
        .collect()
}

/// Every name under which Prometheus knows the metrics of the table.
fn known() -> BTreeSet<String> {
    let series = |kind| match kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"][..],
        Kind::Counter | Kind::Gauge => &[""],
    };
    TABLE
        .iter()
        .flat_map(|spec| {
            let name = format!("{PREFIX}_{}", spec.name);
            series(spec.kind)
                .iter()
                .map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let (mut all, known) = (Vec::new(), known());
    files(&deploy(), &mut all);
    let mut asked = 0;
    for (path, text) in all {
        for name in names(&text) {
            asked += 1;
            assert!(known.contains(&name), "{}: {name}", path.display());
        }
    }
    assert!(asked > TABLE.len(), "only {asked} names were found");
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let mut dashboards = Vec::new();
    files(&deploy().join("grafana/dashboards"), &mut dashboards);
    let shown: String = dashboards.into_iter().map(|(_, text)| text).collect();
    // What a recording rule computes is shown where that is.
    let recorded =
        std::fs::read_to_string(deploy().join("prometheus/rules/recording.yml")).unwrap();
    let shown = names(&(shown + &recorded));
    for spec in TABLE {
        let name = format!("{PREFIX}_{}", spec.name);
        assert!(
            shown.iter().any(|series| *series == name
                || series
                    .strip_prefix(&name)
                    .is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))),
            "{name} is on no dashboard"
        );
    }
}
