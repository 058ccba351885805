//! Ids derived from names: the id of each span of a run follows from the run's name.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use opentelemetry::trace::SpanId;
use sha2::{Digest, Sha256};

/// The trace of a run, which stays the same when another coordinator resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// That of the run with this id.
    #[must_use]
    pub fn of_run(run_id: &str) -> Self {
        Self(hash(&[b"trace", run_id.as_bytes()]))
    }

    /// The span of the coordinator that took the run up at `started`.
    #[must_use]
    pub fn run(self, started: SystemTime) -> SpanId {
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.span("run", &[since.as_secs(), since.subsec_nanos().into()])
    }

    /// The span of what a generation makes of an epoch.
    #[must_use]
    pub fn epoch(self, epoch: u32, generation: u64) -> SpanId {
        self.span("epoch", &[epoch.into(), generation])
    }

    /// The span of one rank's part in that.
    #[must_use]
    pub fn rank(self, epoch: u32, generation: u64, rank: u32) -> SpanId {
        self.span("rank", &[epoch.into(), generation, rank.into()])
    }

    /// The span of the recovery that ended with a generation.
    #[must_use]
    pub fn recovery(self, generation: u64) -> SpanId {
        self.span("recovery", &[generation])
    }

    fn span(self, name: &str, numbers: &[u64]) -> SpanId {
        let numbers: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        SpanId::from_bytes(hash(&[&self.0, name.as_bytes(), &numbers]))
    }
}

impl From<TraceId> for opentelemetry::TraceId {
    fn from(TraceId(bytes): TraceId) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// The first bytes of the SHA-256 of `parts`, each after its length, so that no two lists of
/// parts read the same.
fn hash<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut sum = Sha256::new();
    for part in parts {
        sum.update((part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    let sum = sum.finalize();
    std::array::from_fn(|at| sum[at])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_gives_one_id_and_no_other_name_the_same() {
        let trace = TraceId::of_run("00c0ffee00c0ffee");
        // By `printf '\0\0\0\0\0\0\0\5trace\0\0\0\0\0\0\0\02000c0ffee00c0ffee' | sha256sum`: ids of
        // a run that a newer program resumes must stay.
        assert_eq!(trace.to_string(), "8234a335b2f5709a127bb213121e439d");
        assert_ne!(trace, TraceId::of_run("00c0ffee00c0ffef"));
        assert_eq!(trace.epoch(1, 12), trace.epoch(1, 12));
        let ids = [
            trace.run(UNIX_EPOCH),
            trace.run(SystemTime::now()),
            trace.epoch(1, 12),
            trace.epoch(11, 2),
            trace.epoch(2, 11),
            trace.rank(1, 12, 0),
            trace.rank(1, 12, 1),
            trace.recovery(12),
            TraceId::of_run("").epoch(1, 12),
        ];
        assert_eq!(HashSet::from(ids).len(), ids.len());
    }
}
