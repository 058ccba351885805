//! The journal since a run was resumed.

use std::path::Path;

use integration_tests::{Run, journal};

/// The events of a kind that the journal has since the run was resumed.
pub(crate) fn since_resumed(run_dir: &Path, event: &str) -> Vec<serde_json::Value> {
    let entries = journal(run_dir);
    let resumed = entries
        .iter()
        .rposition(|entry| entry["event"] == "resumed");
    let since = resumed.map_or(&[][..], |at| &entries[at..]);
    let of_kind = since.iter().filter(|entry| entry["event"] == event);
    of_kind.cloned().collect()
}

/// Workers with a local rank that have joined since the run was resumed.
pub(crate) fn joined_again(run: &Run) -> usize {
    let joined = since_resumed(&run.path(), "joined");
    let local = joined.iter().filter(|entry| entry["local_rank"].is_u64());
    local.count()
}
