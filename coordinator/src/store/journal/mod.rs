//! `events.jsonl`: what happened to the run, a line of JSON for each event, for people and for
//! the coordinator that resumes it. Lines are only ever appended, and are durable when an append
//! returns. The caller holds the [`super::RunStore`] of the directory: two writers would cut off
//! each other's lines.

mod entry;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use entry::JournalEntry;

use super::resume::read_if_there;
use super::{StoreError, atomic};
use crate::net::clock::rfc3339;

/// The journal's file.
pub const EVENTS: &str = "events.jsonl";

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// As RFC 3339 writes it.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub entry: JournalEntry,
}

impl JournalLine {
    /// What happens now.
    #[must_use]
    pub fn now(entry: JournalEntry) -> Self {
        Self {
            time: rfc3339(SystemTime::now()),
            entry,
        }
    }
}

/// The open journal of a run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of complete lines.
    length: u64,
}

impl Journal {
    /// Opens the journal in `run_dir`, or begins one. A last line that a crash cut short is
    /// removed.
    ///
    /// # Errors
    /// The file cannot be created, read or written.
    pub fn open(run_dir: &Path) -> Result<Self, StoreError> {
        let path = run_dir.join(EVENTS);
        let open = || -> std::io::Result<(File, u64)> {
            let file = File::options().create(true).append(true).open(&path)?;
            let text = std::fs::read(&path)?;
            let length = whole_lines(&text).len() as u64;
            if length < text.len() as u64 {
                file.set_len(length)?;
            }
            file.sync_all()?;
            atomic::sync(run_dir)?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(StoreError::write(&path))?;
        Ok(Self { path, file, length })
    }

    /// Adds a line with the time of day.
    ///
    /// # Errors
    /// The line cannot be written; the journal is then as before.
    pub fn append(&mut self, entry: JournalEntry) -> Result<(), StoreError> {
        self.append_all(&[JournalLine::now(entry)])
    }

    /// Adds lines, and syncs once.
    ///
    /// # Errors
    /// The lines cannot be written; the journal is then as before.
    pub fn append_all(&mut self, lines: &[JournalLine]) -> Result<(), StoreError> {
        match self.write(lines) {
            Ok(bytes) => {
                self.length += bytes;
                Ok(())
            }
            Err(error) => {
                // If this fails too, the next append tries again, or the next opening.
                let _ = self.file.set_len(self.length);
                Err(StoreError::write(&self.path)(error))
            }
        }
    }

    fn write(&mut self, lines: &[JournalLine]) -> std::io::Result<u64> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        // A failed append may have left a piece that could not be removed then.
        if self.file.metadata()?.len() != self.length {
            self.file.set_len(self.length)?;
        }
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        Ok(text.len() as u64)
    }

    /// Everything that happened so far.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::DamagedLine`] for a complete line that is no entry.
    pub fn lines(&self) -> Result<Vec<JournalLine>, StoreError> {
        let text = read_if_there(&self.path)?.unwrap_or_default();
        let lines = whole_lines(&text).split_inclusive(|byte| *byte == b'\n');
        lines
            .enumerate()
            .map(|(at, line)| {
                serde_json::from_slice(line).map_err(|error| StoreError::DamagedLine {
                    path: self.path.clone(),
                    line: at + 1,
                    what: error.to_string(),
                })
            })
            .collect()
    }
}

/// `text` up to its last line end.
fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte == b'\n');
    &text[..end.map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests;
