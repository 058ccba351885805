//! The text of everything that the core says: log, journal, page, and messages to workers all
//! show these. It is the one place for words; nothing else in this crate writes a sentence, and
//! nothing anywhere reads one to find out what happened.

use std::fmt::{self, Display, Formatter};

use crate::event::{
    Activity, Backend, ComputeType, DataError, DataFolder, EnvironmentError, Location, Loss,
    LossCause, MemberInfo, Position, ProcessStatus, RefusalReason, RunError, ShutdownReason,
    StallReport, WaitReason, WorkerId,
};

/// Hexadecimal digits of a fingerprint that are shown.
const SHORT_FINGERPRINT: usize = 16;

/// A number of things: `1 worker`, `2 workers`.
pub fn count(number: usize, thing: &str) -> impl Display {
    let thing = thing.to_owned();
    fmt::from_fn(move |f| write!(f, "{number} {thing}{}", if number == 1 { "" } else { "s" }))
}

impl Display for Position {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of epoch {}", self.completed, self.epoch)
    }
}

impl Display for WorkerId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

impl Display for MemberInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.rank {
            Some(rank) => write!(f, "rank {rank} on {}", self.host),
            None => write!(f, "{} on {}", self.worker, self.host),
        }
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preparing => f.write_str("while preparing its data"),
            Self::Rendezvous => f.write_str("during rendezvous"),
            Self::Training(position) => write!(f, "after {position}"),
            Self::Validation { epoch } => write!(f, "during validation of epoch {epoch}"),
            Self::Aborting(position) => {
                write!(f, "while aborting the generation after {position}")
            }
            Self::Ending => f.write_str("while the run was ending"),
        }
    }
}

impl Display for Activity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "waiting for the coordinator",
            Self::Preparing => "decoding",
            Self::Forming => "rendezvous",
            Self::DataWait => "data wait",
            Self::Forward => "forward",
            Self::Backward => "backward and all-reduce",
            Self::Optimizer => "optimizer",
            Self::Validation => "validation",
        })
    }
}

impl Display for Backend {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gloo => "Gloo",
            Self::Nccl => "NCCL",
        })
    }
}

impl Display for ComputeType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}

/// What follows the name of a process: `was killed by SIGKILL …`.
impl Display for ProcessStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(0) => f.write_str("exited without an error"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(2) => f.write_str("was ended by SIGINT"),
            Self::Signal(6) => f.write_str("was killed by SIGABRT (native code called abort)"),
            Self::Signal(7) => {
                f.write_str("was killed by SIGBUS (often because /dev/shm or the disk is full)")
            }
            Self::Signal(9) => {
                f.write_str("was killed by SIGKILL (often by the kernel, for lack of memory)")
            }
            Self::Signal(11) => f.write_str("was killed by SIGSEGV (a defect in native code)"),
            Self::Signal(15) => f.write_str("was ended by SIGTERM"),
            Self::Signal(number) => write!(f, "was killed by signal {number}"),
            Self::Unknown => f.write_str("ended with an unknown status"),
        }
    }
}

impl Display for LossCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionBroke => f.write_str("its session broke"),
            Self::ProcessExited(status) => write!(f, "its process {status}"),
            Self::Reported { message, .. } => f.write_str(message),
            Self::Stalled(report) => report.fmt(f),
            Self::DrainRequested => f.write_str("it was asked to end"),
            Self::NewSession => f.write_str("its process opened a new session"),
            Self::NotReading => f.write_str("it does not read the coordinator's messages"),
            Self::UnresponsiveToAbort => {
                f.write_str("it did not leave the aborted generation in time")
            }
            Self::WrongSamples { epoch } => {
                write!(
                    f,
                    "it reported samples of epoch {epoch} that it was not assigned"
                )
            }
        }
    }
}

impl Display for StallReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            member,
            activity,
            step,
            seconds,
            waiting,
        } = self;
        if member.rank.is_none() {
            return write!(
                f,
                "{member} rejoined, but has been in {activity} for {seconds:.1} s"
            );
        }
        write!(
            f,
            "{member} has been in {activity} at step {step} for {seconds:.1} s"
        )?;
        let Some(waiting) = waiting else {
            return Ok(());
        };
        let ranks: Vec<String> = waiting.ranks.iter().map(u32::to_string).collect();
        let plural = if ranks.len() == 1 { "" } else { "s" };
        write!(f, "; rank{plural} {} in ", ranks.join(", "))?;
        match waiting.activity {
            Activity::Backward => f.write_str("all-reduce"),
            activity => activity.fmt(f),
        }
    }
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member {
                member,
                location,
                cause,
            } => write!(f, "{member} {location}: {cause}"),
            Self::Expelled { member, reason } => write!(f, "{member}: {reason}"),
            Self::ExitedEarly { local_rank, status } => {
                write!(f, "local worker {local_rank} {status} before it joined")
            }
            Self::LaunchFailed { local_rank, error } => {
                write!(f, "local worker {local_rank} cannot be started: {error}")
            }
        }
    }
}

/// What follows "waiting for".
impl Display for WaitReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workers { missing } => count(*missing, "more worker").fmt(f),
            Self::Abort { member } => write!(f, "{member} to leave the aborted generation"),
            Self::Drain { member } => write!(f, "{member} to upload the state that it retains"),
        }
    }
}

impl Display for RefusalReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunEnding => f.write_str("the run is ending"),
            Self::RunFull { limit } => {
                write!(
                    f,
                    "the run already has {}, the maximum",
                    count(*limit, "worker")
                )
            }
            Self::LocalRankTaken { local_rank, holder } => {
                write!(f, "local rank {local_rank} is taken by {holder}")
            }
            Self::NotLaunched { local_rank, pid } => write!(
                f,
                "the launcher did not start process {pid} as local rank {local_rank}"
            ),
            Self::Data(error) => error.fmt(f),
            Self::Environment(error) => error.fmt(f),
        }
    }
}

impl Display for DataError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch {
                known,
                other,
                difference,
            } => write!(
                f,
                "workers have different data: {known}, {other}; first difference: {}",
                difference.as_deref().unwrap_or("(unknown)")
            ),
            Self::Missing { path } => {
                write!(f, "{path}, which is part of the run's split, is missing")
            }
            Self::Undecodable { path, error } => write!(f, "{path}: {error}"),
            Self::Strict { path, error, files } => write!(
                f,
                "{path}: {error} (--strict-data is on; {} cannot be decoded)",
                count(*files, "file")
            ),
            Self::TooFewImages { usable } => write!(
                f,
                "{} can be decoded, but at least 2 are required",
                count(*usable, "image")
            ),
            Self::Reported(message) => f.write_str(message),
        }
    }
}

impl Display for DataFolder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let fingerprint = &self.fingerprint;
        let short = fingerprint.get(..SHORT_FINGERPRINT).unwrap_or(fingerprint);
        match &self.host {
            Some(host) => write!(f, "{short} on {host}"),
            None => write!(f, "{short} in the run directory"),
        }
    }
}

impl Display for EnvironmentError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::MixedDevices { gpu, cpu } => write!(
                f,
                "a worker on {gpu} uses a GPU, but one on {cpu} uses the CPU; set --device cpu, \
                 or use GPUs on every host"
            ),
            Self::LaunchFailed(message) | Self::Reported(message) => f.write_str(message),
        }
    }
}

impl Display for ShutdownReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => reason.fmt(f),
            Self::Removed(cause) => cause.fmt(f),
            Self::Ended(reason) => f.write_str(reason.label()),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl Display for RunError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(error) => error.fmt(f),
            Self::Environment(error) => error.fmt(f),
            Self::Weights(message) | Self::RunDirectory(message) => f.write_str(message),
            Self::ExitedEarly { local_rank, status } => {
                write!(f, "local worker {local_rank} {status} before it joined")
            }
            Self::TooFewWorkers {
                ready,
                required,
                last,
            } => {
                let required = count(*required, "required worker");
                write!(f, "{ready} of {required} left; no replacement pending")?;
                match last {
                    Some(last) => write!(f, "; last loss: {last}"),
                    None => Ok(()),
                }
            }
            Self::GroupsFailing { groups, last } => write!(
                f,
                "{groups} process groups in a row broke before they completed a step; last \
                 failure: {last}"
            ),
            Self::BestWeightsLost { epoch, grace } => write!(
                f,
                "the best weights, of epoch {epoch}, did not arrive within --grace {} s; continue \
                 with --resume, and a longer --grace if the network is slow",
                grace.as_secs()
            ),
            Self::WorkerDefect { member, message } => write!(f, "{member}: {message}"),
            Self::InconsistentEpoch {
                epoch,
                validated,
                expected,
                ledger,
            } => write!(
                f,
                "epoch {epoch} validated {validated} of {expected} samples, with the steps \
                 {ledger:?}"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
