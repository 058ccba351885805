//! `make gpu-check` over the fake GPU, so that it still works when there is a real one.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use integration_tests::binary;
use integration_tests::fake_gpu::FakeGpu;
use serde_json::Value;

/// The parts, in lanes that run at the same time.
const LANES: [&[u32]; 3] = [&[1, 4, 5], &[2], &[3]];

/// Runs the program with one variable beside those of a dry run.
fn run(results: &Path, variable: &str, value: u32) {
    let mut command = Command::new(binary("gpu-check"));
    command
        .env_remove("PART")
        .env_remove("ROW")
        .env(variable, value.to_string())
        .env("DRY", "1")
        .env("RESULTS", results);
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
}

#[test]
fn every_row_comes_as_far_as_the_fake_gpu_takes_it() {
    if FakeGpu::new().is_none() {
        return;
    }
    let results = tempfile::tempdir().expect("a temporary folder");
    std::thread::scope(|scope| {
        for lane in LANES {
            scope.spawn(|| {
                lane.iter()
                    .for_each(|part| run(results.path(), "PART", *part))
            });
        }
    });

    let mut rows = BTreeMap::new();
    for part in LANES.concat() {
        let file = results.path().join(format!("part-{part}.json"));
        let text = std::fs::read(file).expect("a file of the part");
        let part: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(part["dry"], true, "{part}");
        for row in part["rows"].as_array().expect("rows") {
            rows.insert(row["row"].as_u64().expect("a number"), row.clone());
        }
    }
    assert_eq!(
        rows.keys().copied().collect::<Vec<_>>(),
        (0..=12).collect::<Vec<_>>()
    );
    for row in rows.values() {
        let says = row["says"].as_str().unwrap_or_default();
        assert_eq!(row["verdict"], "waits", "{row:#}");
        assert!(says.starts_with("waits for a GPU"), "{row:#}");
    }

    // No row, but the table of all that there are.
    run(results.path(), "ROW", 99);
    let table = std::fs::read_to_string(results.path().join("table.md")).expect("the table");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + rows.len(), "{table}");
    for line in lines {
        let inside = line
            .strip_prefix("|")
            .and_then(|line| line.strip_suffix('|'));
        assert_eq!(
            inside.map(|cells| cells.split('|').count()),
            Some(5),
            "{line}"
        );
    }
}
