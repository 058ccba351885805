//! Verdicts, their files, and the table of all parts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use crate::setting::Setting;

/// What a row has shown so far: names and figures, in their order.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<(String, Value)>);

impl Seen {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    /// A figure with three digits.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        let digits = if value.abs() < 0.01 { 6 } else { 3 };
        self.add(name, format!("{value:.digits$}").parse().unwrap_or(value));
    }
}

/// How a row ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// Why.
    Failed(String),
    /// For what.
    Waits(String),
}

impl Verdict {
    fn text(&self) -> String {
        match self {
            Self::Passed => "passed".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
            Self::Waits(what) => format!("waits for {what}"),
        }
    }
}

/// A row that was run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) number: u32,
    pub(crate) run: &'static str,
    pub(crate) must: &'static str,
    pub(crate) seen: Seen,
    pub(crate) verdict: Verdict,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn line(&self) -> String {
        let (number, run, seconds) = (self.number, self.run, self.seconds);
        format!("{number}: {run}: {} ({seconds:.0} s)", self.verdict.text())
    }

    fn json(&self) -> Value {
        let word = match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Waits(_) => "waits",
        };
        let seen: Vec<Value> = self.seen.0.iter().map(|(n, v)| json!([n, v])).collect();
        json!({
            "row": self.number,
            "run": self.run,
            "must": self.must,
            "seen": seen,
            "verdict": word,
            "says": self.verdict.text(),
            "seconds": (self.seconds * 10.0).round() / 10.0,
        })
    }
}

/// The files of this call, and of earlier ones.
#[derive(Debug)]
pub(crate) struct Report {
    folder: PathBuf,
    dry: bool,
    /// Of this call, by part.
    parts: BTreeMap<u32, Vec<Value>>,
}

impl Report {
    pub(crate) fn new(setting: &Setting) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&setting.results).context("cannot create the folder RESULTS")?;
        Ok(Self {
            folder: setting.results.clone(),
            dry: setting.dry,
            parts: BTreeMap::new(),
        })
    }

    /// Writes the part again, with this row: what a call that ends early has seen is kept.
    pub(crate) fn add(&mut self, part: u32, outcome: Outcome) -> anyhow::Result<()> {
        let rows = self.parts.entry(part).or_default();
        rows.push(outcome.json());
        let file = self.folder.join(format!("part-{part}.json"));
        let text = json!({ "part": part, "dry": self.dry, "rows": rows });
        std::fs::write(&file, format!("{text:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Whether a row of this call failed.
    pub(crate) fn failed(&self) -> bool {
        let mut rows = self.parts.values().flatten();
        rows.any(|row| row["verdict"] == "failed")
    }

    /// All parts in the folder as a table, which is also written there.
    pub(crate) fn table(&self) -> anyhow::Result<String> {
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("part-") && name.ends_with(".json") {
                let part: Value = serde_json::from_slice(&std::fs::read(entry.path())?)
                    .with_context(|| format!("{name} is not JSON"))?;
                let dry = part["dry"] == true;
                let found = part["rows"].as_array().into_iter().flatten();
                rows.extend(found.map(|row| (row["row"].as_u64(), line(row, dry))));
            }
        }
        rows.sort();
        let mut text =
            String::from("| # | run | must be seen | seen | verdict |\n|---|---|---|---|---|\n");
        text.extend(rows.into_iter().map(|(_, line)| line));
        std::fs::write(self.folder.join("table.md"), &text).context("cannot write table.md")?;
        Ok(text)
    }
}

fn line(row: &Value, dry: bool) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default().replace('|', "/");
    let seen = row["seen"].as_array().into_iter().flatten().map(|pair| {
        let value = pair[1]
            .as_str()
            .map_or_else(|| pair[1].to_string(), str::to_owned);
        format!("{} {value}", pair[0].as_str().unwrap_or_default()).replace('|', "/")
    });
    let seen: Vec<String> = seen.collect();
    let over = if dry { " (over the fake GPU)" } else { "" };
    format!(
        "| {} | {} | {} | {}{over} | {} |\n",
        row["row"],
        text("run"),
        text("must"),
        seen.join("; "),
        text("says"),
    )
}
