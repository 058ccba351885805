//! The text of what the core names in its messages; those of errors and reasons stand at their
//! variants. Log, journal, page, and messages to workers all show these. Nothing anywhere reads a
//! text to find out what happened.

use std::fmt::{self, Display, Formatter};

use crate::event::{
    Activity, Backend, ComputeType, DataFolder, Location, MemberInfo, Position, ProcessStatus,
    Span, StallReport, WaitReason, WorkerId,
};

/// Hexadecimal digits of a fingerprint that are shown.
const SHORT_FINGERPRINT: usize = 16;

/// A number of things: `1 worker`, `2 workers`.
pub fn count(number: usize, thing: &str) -> impl Display {
    let thing = thing.to_owned();
    fmt::from_fn(move |f| write!(f, "{number} {thing}{}", if number == 1 { "" } else { "s" }))
}

/// Several things, with commas.
pub(crate) fn list(things: &[impl Display]) -> String {
    let things: Vec<String> = things.iter().map(ToString::to_string).collect();
    things.join(", ")
}

/// Steps count from 0, so `0 to 3` are the first three.
impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, end) = (self.first, self.end);
        write!(f, "{first} to {end} by generation {}", self.generation)
    }
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
                "{member}, which has no rank yet, has been in {activity} for {seconds:.1} s"
            );
        }
        write!(
            f,
            "{member} has been in {activity} at step {step} for {seconds:.1} s"
        )?;
        let Some(waiting) = waiting else {
            return Ok(());
        };
        let plural = if waiting.ranks.len() == 1 { "" } else { "s" };
        write!(f, "; rank{plural} {} in ", list(&waiting.ranks))?;
        match waiting.activity {
            Activity::Backward => f.write_str("all-reduce"),
            activity => activity.fmt(f),
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

#[cfg(test)]
mod tests;
