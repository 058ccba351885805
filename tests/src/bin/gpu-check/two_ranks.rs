//! Two ranks on one GPU: NCCL refuses that, so the fake one moves their data.

use std::time::{Duration, Instant};

use integration_tests::{Run, pause};

use crate::faults::{Recovery, kill_and_recover};
use crate::report::Seen;
use crate::runs::{LOSSES, apart, ended_well, steady};
use crate::setting::{Setting, Waits};

/// Shorter than the time after which the coordinator loses a session, about 5 s.
pub(crate) const TIMEOUT: &str = "--collective-timeout=4";
const TIMEOUT_SECONDS: f64 = 4.0;

/// The workers with local rank 0 and 1, once there are both.
pub(crate) fn both(run: &mut Run) -> [u32; 2] {
    run.until("two workers", |run| run.workers().len() == 2);
    let workers = run.workers();
    [workers[0], workers[1]]
}

/// Stops local rank 1; the time until rank 0 has left the group, and the recovery after that.
pub(crate) fn hang_and_recover(run: &mut Run) -> (f64, Recovery) {
    const REASON: &str = "an NCCL collective timed out";
    let [_, other] = both(run);
    let count = |run: &Run| run.log(0).matches(REASON).count();
    let (before, began) = (count(run), Instant::now());
    pause(other);
    run.until(REASON, |run| count(run) > before);
    let waited = began.elapsed().as_secs_f64();
    (waited, kill_and_recover(run, other))
}

pub(crate) fn check(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let epochs = format!("--epochs={}", setting.pick(24, 12));
    let shared = setting.shared()?;
    let expected = (!setting.dry).then(|| {
        let one = ended_well(steady(setting, None, "0", 1, &[&epochs]));
        let two = ended_well(steady(setting, Some(&shared), "0,0", 2, &[&epochs]));
        let apart = apart(&two, Some(&one), LOSSES);
        seen.figure("losses differ by", apart);
        assert!(apart <= 1e-3, "losses differ by {apart}");
        one
    });

    let mut run = steady(setting, Some(&shared), "0,0", 2, &[&epochs, TIMEOUT]);
    run.until("an epoch", |run| run.epochs() >= 1);
    let [survivor, other] = both(&mut run);
    let killed = kill_and_recover(&mut run, other);
    seen.figure("after SIGKILL, s", killed.seconds);
    let known = run.epochs();
    run.until("another epoch", |run| run.epochs() > known);
    let (waited, hung) = hang_and_recover(&mut run);
    seen.figure("error of a hang, s", waited);
    assert_eq!(both(&mut run)[0], survivor, "the survivor was replaced");
    let ended = ended_well(run.with_timeout(Duration::from_secs(180)));
    let lost = killed.steps_lost + hung.steps_lost;
    seen.add("steps lost", lost);
    let apart = apart(&ended, expected.as_ref(), LOSSES);
    seen.figure("losses with faults differ by", apart);
    assert_eq!(lost, 0, "steps lost");
    assert!(apart <= 1e-3, "losses with faults differ by {apart}");
    assert!(
        killed.seconds < 10.0,
        "{:.1} s after SIGKILL",
        killed.seconds
    );
    // A step may just have begun. A busy machine without a GPU is slower.
    let late = setting.pick(1.1, 5.0);
    assert!(
        waited <= TIMEOUT_SECONDS + late,
        "a hang ends after {waited:.1} s"
    );
    Ok(())
}
