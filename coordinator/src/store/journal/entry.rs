//! What the journal can say.

use serde::{Deserialize, Serialize};

use crate::store::epochs::number_or_null;

/// One event. Epochs count from 1; `completed` is a number of steps of that epoch; workers go by
/// the numbers that the run gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum JournalEntry {
    /// The run began and waits for so many workers.
    Started { run_id: String, workers: usize },
    /// A later coordinator took the run over; the newest checkpoint, if any, is at this place.
    Resumed { epoch: u32, completed: u32 },
    /// A generation of workers works together.
    Formed { generation: u64, world_size: usize },
    /// A worker joined; `local_rank` is its place with the launcher, if that started it.
    Joined {
        worker: u64,
        host: String,
        local_rank: Option<u32>,
    },
    /// A worker was lost.
    Lost {
        who: String,
        rank: Option<u32>,
        local_rank: Option<u32>,
        when: String,
        cause: String,
    },
    /// A group works again after a loss.
    Recovered {
        generation: u64,
        world_size: usize,
        epoch: u32,
        completed: u32,
        /// From the loss to that group.
        #[serde(deserialize_with = "number_or_null")]
        seconds: f64,
        steps_lost: u32,
    },
    /// A worker left politely.
    Left { who: String },
    /// Nothing moved for too long; the line that said so.
    Stalled { line: String },
    /// A checkpoint is durable.
    Checkpoint {
        epoch: u32,
        completed: u32,
        bytes: u64,
        /// From its beginning to the disk.
        #[serde(deserialize_with = "number_or_null")]
        seconds: f64,
    },
    /// A checkpoint that could not be used.
    #[serde(alias = "torn_checkpoint")]
    CorruptCheckpoint { reason: String },
    /// The run ended: for the reason of early stopping, or with the text of an error.
    Ended { reason: String, ok: bool },
}
