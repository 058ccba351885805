//! `make gpu-check` over the fake GPU, so that it still works when there is a real one.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use integration_tests::binary;
use integration_tests::fake_gpu::FakeGpu;
use serde_json::Value;

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

/// The rows of a part come as far as the fake GPU takes them, and a table shows them.
fn part(number: u32, expected: &[u64]) {
    if FakeGpu::new().is_none() {
        return;
    }
    let results = tempfile::tempdir().expect("a temporary folder");
    let results = results.path();
    run(results, "PART", number);

    let file = results.join(format!("part-{number}.json"));
    let text = std::fs::read(file).expect("a file of the part");
    let part: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(part["dry"], true, "{part}");
    let rows = part["rows"].as_array().expect("rows");
    let numbers: Vec<u64> = rows.iter().flat_map(|row| row["row"].as_u64()).collect();
    assert_eq!(numbers, expected);
    for row in rows {
        let says = row["says"].as_str().unwrap_or_default();
        assert_eq!(row["verdict"], "waits", "{row:#}");
        assert!(says.starts_with("waits for a GPU"), "{row:#}");
    }

    // No row, but the table of all that there are.
    run(results, "ROW", 99);
    let table = std::fs::read_to_string(results.join("table.md")).expect("the table");
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

#[test]
fn the_machine_and_its_numbers() {
    part(1, &[0, 1, 2, 3, 11]);
}

#[test]
fn training_and_its_faults() {
    part(2, &[5, 6]);
}

#[test]
fn two_ranks_on_one_gpu() {
    part(3, &[4, 7]);
}

#[test]
fn errors_and_the_benchmark() {
    part(4, &[8, 9, 10]);
}

#[test]
fn two_gpus() {
    part(5, &[12]);
}
