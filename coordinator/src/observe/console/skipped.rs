//! The lines about files that do not decode: a few with their reasons, and how many more there are.

use std::collections::BTreeMap;

use common::text::printable;
use coordinator_core::event::BadFile;
use coordinator_core::words::count;

use crate::store::BAD_FILES;

/// Files that are named.
const NAMED: usize = 10;

pub(super) fn lines(bad: &[BadFile]) -> Vec<String> {
    let (named, more) = bad.split_at(bad.len().min(NAMED));
    let line = |bad: &BadFile| {
        let (path, error) = (printable(&bad.path), printable(&bad.error));
        format!("skipped {path}: {error}")
    };
    let mut lines: Vec<String> = named.iter().map(line).collect();
    if !more.is_empty() {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for bad in more {
            // What follows a colon is often of this file alone.
            let reason = bad.error.split(':').next().unwrap_or_default();
            *reasons.entry(printable(reason)).or_default() += 1;
        }
        let reasons = reasons
            .iter()
            .map(|(reason, files)| format!("{files}: {reason}"));
        let reasons: Vec<String> = reasons.collect();
        lines.push(format!(
            "skipped {} ({}); {BAD_FILES} lists all {}",
            count(more.len(), "more file"),
            reasons.join("; "),
            bad.len()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(number: usize, error: &str) -> BadFile {
        BadFile {
            path: format!("a/{number}.jpg"),
            error: error.to_owned(),
        }
    }

    #[test]
    fn ten_files_are_named_and_the_others_counted_by_reason() {
        let mut files: Vec<BadFile> = (0..10).map(|number| bad(number, "is empty")).collect();
        assert_eq!(lines(&files).len(), 10);
        files.push(bad(10, "is empty"));
        files.push(bad(11, "is corrupt or unsupported: it ends early"));
        files.push(bad(12, "is corrupt or unsupported: bad code"));
        let lines = lines(&files);
        assert_eq!(lines.len(), 11);
        assert_eq!(
            lines[10],
            "skipped 3 more files (2: is corrupt or unsupported; 1: is empty); bad-files.jsonl \
             lists all 13"
        );
    }

    #[test]
    fn a_name_cannot_forge_a_line_or_command_a_terminal() {
        let file = BadFile {
            path: "a/\u{1b}[2Jx\nfinished all of 8 epochs.jpg".to_owned(),
            error: "is empty".to_owned(),
        };
        assert_eq!(
            lines(&[file]),
            [r"skipped a/\u{1b}[2Jx\nfinished all of 8 epochs.jpg: is empty"]
        );
    }
}
