//! Faults in a run of one worker.

use std::time::Duration;

use integration_tests::fault::{
    first_step, first_step_after_recovery, now, recoveries, steps_lost,
};
use integration_tests::{Run, kill};
use rustix::process::Signal;

use crate::report::Seen;
use crate::runs::{LOSSES, apart, ended_well, steady};
use crate::setting::{Setting, Waits, prepare};

/// How long to wait for a recovery at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A recovery from the loss of a worker.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// From the fault to the next step.
    pub(crate) seconds: f64,
    pub(crate) steps_lost: u64,
}

/// Kills a worker and waits for the next step. Panics if there is none.
pub(crate) fn kill_and_recover(run: &mut Run, worker: u32) -> Recovery {
    let (injected, known) = (now(), recoveries(&run.path()).len());
    kill(worker);
    let first = first_step_after_recovery(run, PATIENCE, injected, known);
    let first = first.unwrap_or_else(|| panic!("no recovery from SIGKILL:\n{}", run.output()));
    Recovery {
        seconds: first - injected,
        steps_lost: steps_lost(&run.path(), known),
    }
}

pub(crate) fn check(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let fake = setting.fake()?;
    let fake = fake.as_ref();
    // On one rank, an epoch takes milliseconds on the fake GPU.
    let epochs = setting.pick(200, 120);
    let flag = format!("--epochs={epochs}");
    let recorded = |run: &mut Run, real: usize, dry: usize| {
        let least = setting.pick(real, dry);
        run.until("an epoch", |run| run.epochs() >= least);
    };
    let expected = (!setting.dry).then(|| ended_well(steady(setting, fake, "0", 1, &[&flag])));

    let mut run = steady(setting, fake, "0", 1, &[&flag]);
    recorded(&mut run, 40, 1);
    let worker = run.workers()[0];
    let of_worker = kill_and_recover(&mut run, worker).seconds;
    seen.figure("after the worker, s", of_worker);

    recorded(&mut run, 80, 3);
    let killed = now();
    run.signal(Signal::KILL);
    let mut run = run
        .wait()
        .resume_with(&[], |command| prepare(fake, "0", command));
    let first = first_step(&mut run, PATIENCE, |_| Some(killed));
    let first = first.unwrap_or_else(|| panic!("no step after a resumption:\n{}", run.output()));
    seen.figure("after the coordinator, s", first - killed);

    recorded(&mut run, 120, 5);
    run.signal(Signal::INT);
    let stopped = run.wait().left_no_process();
    assert_eq!(stopped.code, 130, "after Ctrl-C: {}", stopped.output);
    let ended = ended_well(stopped.resume_with(&[], |command| prepare(fake, "0", command)));
    assert_eq!(ended.epochs().len(), epochs, "the number of epochs");
    let apart = apart(&ended, expected.as_ref(), LOSSES);
    seen.figure("losses differ by", apart);
    assert!(apart <= 1e-3, "losses differ by {apart}");
    assert!(
        of_worker < 15.0 && first - killed < 15.0,
        "a recovery takes too long"
    );
    Ok(())
}
