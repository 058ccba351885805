//! The texts whose wording matters most.

use super::*;
use crate::event::{DataError, Loss, LossCause, RunError};

fn rank(rank: u32) -> MemberInfo {
    MemberInfo {
        worker: WorkerId(7),
        host: format!("host-{rank}"),
        rank: Some(rank),
        local_rank: None,
    }
}

#[test]
fn a_stalled_worker_may_have_no_rank() {
    let report = StallReport {
        member: MemberInfo {
            rank: None,
            ..rank(3)
        },
        activity: Activity::DataWait,
        step: 412,
        seconds: 7.2,
        waiting: None,
    };
    assert_eq!(
        report.to_string(),
        "worker 7 on host-3, which has no rank yet, has been in data wait for 7.2 s"
    );
}

#[test]
fn too_few_workers_are_counted_and_the_last_loss_is_named() {
    let mut error = RunError::TooFewWorkers {
        ready: 0,
        required: 2,
        last: None,
    };
    let text = "0 of 2 required workers left; no replacement pending";
    assert_eq!(error.to_string(), text);
    if let RunError::TooFewWorkers { last, .. } = &mut error {
        *last = Some(Box::new(Loss::Member {
            member: rank(1),
            location: Location::Training(Position {
                epoch: 3,
                completed: 14,
            }),
            cause: LossCause::ProcessExited(ProcessStatus::Signal(9)),
        }));
    }
    assert_eq!(
        error.to_string(),
        format!(
            "{text}; last loss: rank 1 on host-1 after step 14 of epoch 3: its process was \
             killed by SIGKILL (often by the kernel, for lack of memory)"
        )
    );
}

#[test]
fn different_data_is_reported_with_both_fingerprints_and_a_path() {
    let folder = |host: Option<&str>, digit: &str| DataFolder {
        host: host.map(str::to_owned),
        fingerprint: digit.repeat(64),
    };
    let error = DataError::Mismatch {
        known: folder(None, "a"),
        other: folder(Some("host-b"), "b"),
        difference: Some("cat/1.jpg".to_owned()),
    };
    assert_eq!(
        error.to_string(),
        "workers have different data: aaaaaaaaaaaaaaaa in the run directory, \
         bbbbbbbbbbbbbbbb on host-b; first difference: cat/1.jpg"
    );
}
