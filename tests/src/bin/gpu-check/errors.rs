//! Errors of the device: each has a name, and ends what it must.

use integration_tests::fault::recoveries;
use integration_tests::{SMALL, STEADY};

use crate::report::Seen;
use crate::runs::steady;
use crate::setting::{Setting, Waits, prepare};

pub(crate) fn out_of_memory(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let fake = setting.fake()?;
    // About 400 GiB.
    let absurd = [
        "--data=demo",
        "--limit-per-class=100",
        "--image-size=896",
        "--global-batch=800",
        "--metrics-listen=127.0.0.1:0",
        "--metrics-linger=0",
    ];
    let dry = [SMALL, STEADY].concat();
    let arguments = [
        setting.pick(&absurd[..], &dry),
        &["--workers=1", "--device=cuda"],
    ]
    .concat();
    let run = integration_tests::Run::start_with(&arguments, |command| {
        prepare(fake.as_ref(), "0", command);
        if setting.dry {
            command.env("FAKEGPU_OUT_OF_MEMORY_AFTER", "max_pool_forward");
        }
    });
    let ended = run.wait().left_no_process();
    let advice = "out of memory: a smaller --global-batch, or more workers";
    let said = ended.output.lines().find(|line| line.contains(advice));
    seen.add("exit code", ended.code);
    seen.add("recoveries", recoveries(&ended.path()).len());
    assert!(said.is_some(), "no advice: {}", ended.output);
    assert_ne!(ended.code, 0, "the exit code");
    assert!(
        recoveries(&ended.path()).is_empty(),
        "it starts again: {}",
        ended.output
    );
    Ok(())
}

pub(crate) fn sticky(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let shared = setting.shared()?;
    let epochs = format!("--epochs={}", setting.pick(200, 120));
    let mut run = steady(setting, Some(&shared), "0", 1, &[&epochs]);
    run.until("an epoch", |run| run.epochs() >= 1);
    let broken = run.workers()[0];
    shared.break_gpu_of(broken);
    run.until("a recovery", |run| !recoveries(&run.path()).is_empty());
    let recovered = recoveries(&run.path()).remove(0);
    seen.figure(
        "recovered in, s",
        recovered["seconds"].as_f64().unwrap_or(f64::NAN),
    );
    assert!(
        !run.workers().contains(&broken),
        "the worker was not replaced"
    );
    // The process that is broken may say that it terminates.
    run.wait().succeeded().left_no_process();
    Ok(())
}
