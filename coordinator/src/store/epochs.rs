//! The lines of `metrics.jsonl`: one record for each epoch, there and back to the last bit.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::StoreError;

/// A line of `metrics.jsonl`. A loss that is not finite stands there as `null`, as JSON has no
/// other word for it, and comes back as NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over all training samples of the epoch.
    #[serde(deserialize_with = "number_or_null")]
    pub train_loss: f64,
    /// Mean over all validation samples after the epoch.
    #[serde(deserialize_with = "number_or_null")]
    pub validation_loss: f64,
    /// Share of validation samples whose likeliest class is the true one, 0 to 1.
    pub validation_accuracy: f64,
    /// Learning rate of each layer group in the epoch.
    pub learning_rates: BTreeMap<String, f64>,
    /// Training samples per second over all ranks.
    pub images_per_second: f64,
    /// Wall seconds by phase.
    pub seconds: BTreeMap<String, f64>,
    /// Ranks at the end of the epoch.
    pub world_size: usize,
    /// Generation at the end of the epoch.
    pub generation: u64,
    /// Which generation made which steps; together they are all, each once.
    pub ledger: Vec<LedgerRow>,
}

/// Steps `first` to `end`, exclusive, of an epoch, made once by one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The generation.
    pub generation: u64,
    /// Its ranks; 0 for steps that an earlier coordinator saw.
    pub world_size: u32,
    /// From 0.
    pub first: u32,
    /// Exclusive.
    pub end: u32,
}

/// A number, or NaN for the `null` that stands for it in JSON.
pub(super) fn number_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The file's text: a line for each record.
///
/// # Errors
/// Only with a type that JSON cannot hold, which these are not.
pub(super) fn encode(records: &[EpochRecord]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Reads what [`encode`] wrote to `path`. The file is only ever replaced as a whole, so a line
/// that is cut short is damage here and no trace of a crash.
///
/// # Errors
/// [`StoreError::DamagedLine`] for the first line that is no record or not later than the one
/// before.
pub(super) fn decode(text: &[u8], path: &Path) -> Result<Vec<EpochRecord>, StoreError> {
    let mut records: Vec<EpochRecord> = Vec::new();
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = |what| StoreError::DamagedLine {
            path: path.to_owned(),
            line: at + 1,
            what,
        };
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(damaged("it is cut short".to_owned()));
        };
        let record: EpochRecord =
            serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        if let Some(last) = records.last()
            && record.epoch <= last.epoch
        {
            return Err(damaged(format!(
                "epoch {} follows epoch {}",
                record.epoch, last.epoch
            )));
        }
        records.push(record);
    }
    Ok(records)
}
