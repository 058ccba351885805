//! Runs that rows share, and the demo run.

use std::process::Command;

use integration_tests::fake_gpu::FakeGpu;
use integration_tests::{Ended, Run, SMALL, STEADY};

use crate::report::Seen;
use crate::setting::{Setting, Waits, prepare};

/// A run on the demo set whose result does not depend on the number of ranks, nor on faults.
const FULL: &[&str] = &[
    "--data=demo",
    "--precision=fp32",
    "--batch-norm=frozen",
    "--layer-lr=uniform=1e-5",
    "--lr-schedule=constant",
    "--seed=11",
    "--metrics-listen=127.0.0.1:0",
    "--metrics-linger=0",
];

/// Starts such a run, of many epochs or of few ones.
pub(crate) fn steady(
    setting: &Setting,
    fake: Option<&FakeGpu>,
    visible: &str,
    workers: usize,
    arguments: &[&str],
) -> Run {
    steady_with(setting, fake, visible, workers, arguments, |_| {})
}

/// The same, after `change` has changed the command.
pub(crate) fn steady_with(
    setting: &Setting,
    fake: Option<&FakeGpu>,
    visible: &str,
    workers: usize,
    arguments: &[&str],
    change: impl FnOnce(&mut Command),
) -> Run {
    let kind = setting.pick(FULL.to_vec(), [SMALL, STEADY].concat());
    let workers = format!("--workers={workers}");
    let ours = [
        workers.as_str(),
        "--device=cuda",
        "--patience=1000",
        "--max-restarts=100",
    ];
    Run::start_with(&[&kind, &ours[..], arguments].concat(), |command| {
        prepare(fake, visible, command);
        change(command);
    })
}

/// Checks that a run ended well and in peace.
pub(crate) fn ended_well(run: Run) -> Ended {
    let ended = run.wait().succeeded().left_no_process();
    let said = ended.said();
    let terminated = said.lines().find(|line| line.contains("terminate called"));
    assert_eq!(terminated, None, "in a run that must end in peace");
    ended
}

/// All losses of an epoch.
pub(crate) const LOSSES: &[&str] = &["train_loss", "validation_loss"];

/// The largest difference between these losses of two runs, or between those of one and 0, which is
/// the loss on a fake GPU. Panics if they have not the same epochs.
pub(crate) fn apart(ended: &Ended, expected: Option<&Ended>, keys: &[&str]) -> f64 {
    let mut largest: f64 = 0.0;
    for key in keys {
        let losses = ended.column(key);
        let expected = expected.map_or_else(|| vec![0.0; losses.len()], |other| other.column(key));
        assert_eq!(losses.len(), expected.len(), "the number of epochs");
        for (a, b) in losses.iter().zip(expected) {
            largest = largest.max((a - b).abs());
        }
    }
    largest
}

/// The demo run as users start it.
pub(crate) fn demo(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let fake = setting.fake()?;
    let on = |device: &str| {
        let flags = [
            "--workers=1",
            "--data=demo",
            "--seed=42",
            "--metrics-listen=127.0.0.1:0",
            "--metrics-linger=0",
        ];
        let dry = [SMALL, &["--epochs=1"]].concat();
        let device = format!("--device={device}");
        let arguments = [setting.pick(&[][..], &dry), &flags[..], &[device.as_str()]].concat();
        ended_well(setting.run(fake.as_ref(), "0", &arguments))
    };
    let gpu = on("cuda");
    if setting.dry {
        assert_eq!(apart(&gpu, None, LOSSES), 0.0, "the fake GPU has computed");
        return Ok(());
    }
    let cpu = on("cpu");
    let best = gpu
        .column("validation_accuracy")
        .into_iter()
        .fold(0.0, f64::max);
    let largest = apart(&gpu, Some(&cpu), &["train_loss"]) / cpu.column("train_loss")[0];
    seen.figure("accuracy", best);
    seen.figure("largest difference, of the first loss", largest);
    assert!(best >= 0.98, "an accuracy of {best}");
    assert!(
        largest <= 0.05,
        "losses differ by {largest:.3} of the first"
    );
    Ok(())
}
