//! The events of the journal, and which facts of a run are among them.

use coordinator_core::Fact;
use coordinator_core::event::Outcome;
use serde::{Deserialize, Serialize};

use crate::store::epochs::number_or_null;

/// One event. Epochs count from 1, `completed` counts steps of that epoch, and `worker` is the
/// number that the run gave to a worker's session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JournalEntry {
    /// The run began.
    Started {
        /// The name by which its workers know it.
        run_id: String,
        /// Workers that it waits for.
        workers: usize,
    },
    /// Another coordinator took the run over.
    Resumed {
        /// Of the newest valid checkpoint; 1 without one.
        epoch: u32,
        /// Of the newest valid checkpoint; 0 without one.
        completed: u32,
    },
    /// The process group of a generation is complete.
    Formed {
        /// The generation.
        generation: u64,
        /// Its ranks.
        world_size: usize,
    },
    /// A worker joined.
    Joined {
        /// Its number.
        worker: u64,
        /// Its machine.
        host: String,
        /// Which of the launcher's processes it is, if it is one.
        local_rank: Option<u32>,
    },
    /// A worker was lost.
    Lost {
        /// Its rank or number, and its machine.
        who: String,
        /// Its rank, if it had one.
        rank: Option<u32>,
        /// Which of the launcher's processes it was, if it was one.
        local_rank: Option<u32>,
        /// Where in the run it was.
        when: String,
        /// Why.
        cause: String,
    },
    /// The process ended of a local worker that was lost when its session broke.
    Exited {
        /// Which of the launcher's processes it was.
        local_rank: u32,
        /// Its exit code, or the signal that ended it.
        how: String,
    },
    /// A process group works again after a loss.
    Recovered {
        /// The new generation.
        generation: u64,
        /// Its ranks.
        world_size: usize,
        /// The position from which the run continues.
        epoch: u32,
        /// The position from which the run continues.
        completed: u32,
        /// From the loss to that group.
        #[serde(deserialize_with = "number_or_null")]
        seconds: f64,
        /// Steps that are made again.
        steps_lost: u32,
    },
    /// A worker ended because it was asked to.
    Left {
        /// Its rank or number, and its machine.
        who: String,
    },
    /// A worker made no progress for longer than the stall timeout.
    Stalled {
        /// Which one, and what it does.
        line: String,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// Its position.
        epoch: u32,
        /// Its position.
        completed: u32,
        /// Of its state.
        bytes: u64,
        /// The time to write it.
        #[serde(deserialize_with = "number_or_null")]
        seconds: f64,
    },
    /// A checkpoint cannot be used.
    CorruptCheckpoint {
        /// Which one, why, and what is used instead.
        reason: String,
    },
    /// The run ended.
    Ended {
        /// The stop reason, or the error.
        reason: String,
        /// Whether there was no error.
        ok: bool,
    },
}

impl JournalEntry {
    /// The event that a fact is, if the journal keeps it.
    #[must_use]
    pub fn of(fact: &Fact) -> Option<Self> {
        Some(match fact {
            Fact::Joined { member, .. } => Self::Joined {
                worker: member.worker.0,
                host: member.host.clone(),
                local_rank: member.local_rank,
            },
            Fact::Lost {
                member,
                location,
                cause,
            } => Self::Lost {
                who: member.to_string(),
                rank: member.rank,
                local_rank: member.local_rank,
                when: location.to_string(),
                cause: cause.to_string(),
            },
            Fact::Exited { local_rank, status } => Self::Exited {
                local_rank: *local_rank,
                how: status.to_string(),
            },
            Fact::Left { member } => Self::Left {
                who: member.to_string(),
            },
            Fact::Stalled(report) => Self::Stalled {
                line: report.to_string(),
            },
            Fact::GroupFormed {
                generation, ranks, ..
            } => Self::Formed {
                generation: *generation,
                world_size: ranks.len(),
            },
            Fact::Recovered {
                generation,
                position,
                world_size,
                seconds,
                steps_lost,
                ..
            } => Self::Recovered {
                generation: *generation,
                world_size: *world_size,
                epoch: position.epoch,
                completed: position.completed,
                seconds: *seconds,
                steps_lost: *steps_lost,
            },
            _ => return None,
        })
    }

    /// The end of a run.
    #[must_use]
    pub fn ended(outcome: &Outcome) -> Self {
        match outcome {
            Ok(reason) => Self::Ended {
                reason: reason.label().to_owned(),
                ok: true,
            },
            Err(error) => Self::Ended {
                reason: error.to_string(),
                ok: false,
            },
        }
    }
}
