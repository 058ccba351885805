//! `events.jsonl`, read without the types of the program.

use std::path::Path;

use serde_json::Value;

/// The complete lines of the journal in a run directory.
pub fn journal(run_dir: &Path) -> Vec<Value> {
    crate::read(&run_dir.join("events.jsonl"))
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
