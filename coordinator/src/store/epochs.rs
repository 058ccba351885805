//! The lines of `metrics.jsonl`: one record for each epoch, there and back to the last bit.

use std::collections::BTreeMap;
use std::path::Path;

use coordinator_core::event::{FinishedEpoch, Phases, Span};
use coordinator_core::schedule::{PARAMETER_GROUPS, by_group};
use serde::{Deserialize, Deserializer, Serialize};

use super::StoreError;

/// A [`FinishedEpoch`] as a line of `metrics.jsonl` shows it. A loss that is not finite stands
/// there as `null`, as JSON has no other word for it, and comes back as NaN.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochRecord {
    epoch: u32,
    #[serde(deserialize_with = "number_or_null")]
    train_loss: f64,
    #[serde(deserialize_with = "number_or_null")]
    validation_loss: f64,
    validation_accuracy: f64,
    learning_rates: BTreeMap<String, f64>,
    images_per_second: f64,
    /// By phase, with `total`, the wall seconds; of the last generation, which may have made only a
    /// part of the epoch.
    seconds: BTreeMap<String, f64>,
    world_size: u32,
    generation: u64,
    ledger: Vec<LedgerRow>,
}

/// A [`Span`] of the ledger.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct LedgerRow {
    generation: u64,
    world_size: u32,
    first: u32,
    end: u32,
}

impl From<&FinishedEpoch> for EpochRecord {
    fn from(epoch: &FinishedEpoch) -> Self {
        let row = |span: &Span| LedgerRow {
            generation: span.generation,
            world_size: span.world_size,
            first: span.first,
            end: span.end,
        };
        let seconds = epoch.phases.named().into_iter();
        Self {
            epoch: epoch.epoch,
            train_loss: epoch.train_loss,
            validation_loss: epoch.validation_loss,
            validation_accuracy: epoch.validation_accuracy,
            learning_rates: named(by_group(epoch.lrs)),
            images_per_second: epoch.images_per_second,
            seconds: named(seconds.chain([("total", epoch.seconds)])),
            world_size: epoch.world_size,
            generation: epoch.generation,
            ledger: epoch.ledger.iter().map(row).collect(),
        }
    }
}

impl TryFrom<EpochRecord> for FinishedEpoch {
    /// The key that is missing.
    type Error = String;

    fn try_from(record: EpochRecord) -> Result<Self, String> {
        let span = |row: &LedgerRow| Span {
            generation: row.generation,
            world_size: row.world_size,
            first: row.first,
            end: row.end,
        };
        let mut lrs = [0.0; PARAMETER_GROUPS.len()];
        for (lr, group) in lrs.iter_mut().zip(PARAMETER_GROUPS) {
            *lr = value(&record.learning_rates, "learning_rates", group)?;
        }
        let seconds = |phase| value(&record.seconds, "seconds", phase);
        Ok(Self {
            epoch: record.epoch,
            train_loss: record.train_loss,
            validation_loss: record.validation_loss,
            validation_accuracy: record.validation_accuracy,
            lrs,
            images_per_second: record.images_per_second,
            phases: Phases {
                data_wait: seconds("data_wait")?,
                forward_backward: seconds("forward_backward")?,
                allreduce_wait: seconds("allreduce_wait")?,
                optimizer: seconds("optimizer")?,
                validation: seconds("validation")?,
            },
            seconds: seconds("total")?,
            world_size: record.world_size,
            generation: record.generation,
            ledger: record.ledger.iter().map(span).collect(),
        })
    }
}

fn named<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> BTreeMap<String, f64> {
    values
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn value(of: &BTreeMap<String, f64>, field: &str, key: &str) -> Result<f64, String> {
    let value = of.get(key).copied();
    value.ok_or_else(|| format!("missing key `{key}` of `{field}`"))
}

/// A number, or NaN for the `null` that stands for it in JSON.
pub(super) fn number_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The file's text: a line for each record.
///
/// # Errors
/// Only with a type that JSON cannot hold, which these are not.
pub(super) fn encode(epochs: &[FinishedEpoch]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for epoch in epochs {
        serde_json::to_writer(&mut lines, &EpochRecord::from(epoch))?;
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
pub(super) fn decode(text: &[u8], path: &Path) -> Result<Vec<FinishedEpoch>, StoreError> {
    let mut epochs: Vec<FinishedEpoch> = Vec::new();
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
        let epoch = FinishedEpoch::try_from(record).map_err(damaged)?;
        if let Some(last) = epochs.last()
            && epoch.epoch <= last.epoch
        {
            return Err(damaged(format!(
                "epoch {} follows epoch {}",
                epoch.epoch, last.epoch
            )));
        }
        epochs.push(epoch);
    }
    Ok(epochs)
}
