//! Real NCCL between two GPUs, which only two GPUs can show.

use std::time::Duration;

use integration_tests::Run;
use integration_tests::injection_point::LOGS;

use crate::faults::kill_and_recover;
use crate::report::Seen;
use crate::runs::steady_with;
use crate::setting::{Setting, Waits};
use crate::two_ranks::{TIMEOUT, both, hang_and_recover};

/// Injects a fault; the time of the recovery, and the steps lost.
type Fault = fn(&mut Run) -> (f64, u64);

pub(crate) fn check(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    if setting.gpus < 2 {
        return Err(Waits::for_("two GPUs"));
    }
    let fake = setting.fake()?;
    let switches = setting.pick(&["0", "1"][..], &["0"]);
    for switch in switches {
        // Far more than the faults take: the run is stopped after them.
        let further = setting.pick(&["--epochs=100000", TIMEOUT][..], &["--epochs=100000"]);
        let run = steady_with(setting, fake.as_ref(), "0,1", 2, further, |command| {
            command
                .env("NCCL_NVLS_ENABLE", switch)
                .env("RUST_LOG", LOGS);
        });
        let mut run = run.with_timeout(Duration::from_secs(120));
        run.until("an epoch", |run| run.epochs() >= 1);
        let [survivor, _] = both(&mut run);
        let times = setting.pick(10, 1);
        let mut slowest: f64 = 0.0;
        let mut lost = 0;
        // Tests over the fake GPU have the others.
        let faults: &[Fault] = setting.pick(&[killed, killed_during_set_up, hung], &[killed]);
        for fault in faults {
            for _ in 0..times {
                let (seconds, steps_lost) = fault(&mut run);
                slowest = slowest.max(seconds);
                lost += steps_lost;
                assert_eq!(both(&mut run)[0], survivor, "the survivor was replaced");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        seen.figure(format!("NVLS {switch}: slowest recovery, s"), slowest);
        seen.add(format!("NVLS {switch}: steps lost"), lost);
        assert_eq!(lost, 0, "steps lost");
        run.signal(rustix::process::Signal::INT);
        let stopped = run.wait().left_no_process();
        assert_eq!(stopped.code, 130, "{}", stopped.output);
        assert!(
            !stopped.said().contains("terminate called"),
            "{}",
            stopped.said()
        );
    }
    Ok(())
}

fn killed(run: &mut Run) -> (f64, u64) {
    let [_, other] = both(run);
    let recovery = kill_and_recover(run, other);
    (recovery.seconds, recovery.steps_lost)
}

fn hung(run: &mut Run) -> (f64, u64) {
    let (_, recovery) = hang_and_recover(run);
    (recovery.seconds, recovery.steps_lost)
}

/// Kills rank 1, and its replacement while that joins the group.
fn killed_during_set_up(run: &mut Run) -> (f64, u64) {
    let [_, other] = both(run);
    let count = |run: &Run| run.log(1).matches("phase=Forming").count();
    let before = count(run);
    integration_tests::kill(other);
    run.until("a replacement that joins the group", |run| {
        count(run) > before
    });
    killed(run)
}
