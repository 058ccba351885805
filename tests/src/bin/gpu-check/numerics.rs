//! Right numbers: the tests of c10d and of the network on the GPU, and no access outside of memory.

use std::process::Command;

use crate::launches::{exists, output, step, tests};
use crate::report::Seen;
use crate::setting::{Setting, Waits, prepare};

/// The tests of c10d.
pub(crate) fn c10d_tests() -> Result<Command, Waits> {
    tests("c10d-tests", "it", "nccl::one_rank_trains").map(Command::new)
}

/// Runs tests; panics with the names of those that fail.
fn pass(command: &mut Command) -> String {
    let (good, text) = output(command);
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with("FAILED"))
        .collect();
    assert!(good, "{}\n{text}", failed.join("; "));
    let result = text.lines().find(|line| line.starts_with("test result"));
    let passed = result.and_then(|line| line.split(". ").nth(1));
    passed
        .and_then(|rest| rest.split(';').next())
        .unwrap_or("no result")
        .to_owned()
}

pub(crate) fn c10d(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let mut command = c10d_tests()?;
    let fake = setting.fake()?;
    prepare(fake.as_ref(), "0", &mut command);
    // The others compute on the CPU; the fake GPU cannot compute.
    let chosen = setting.pick("--include-ignored", "nccl::every_machine");
    seen.add("tests", pass(command.arg(chosen)));
    Ok(())
}

pub(crate) fn parity(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let fake = setting.fake()?;
    for (name, tf32, tolerance) in [("without TF32", false, "1e-4"), ("with TF32", true, "5e-3")] {
        let mut command =
            Command::new(tests("parity", "parity", "the_state_dict_is_torchvisions")?);
        prepare(fake.as_ref(), "0", &mut command);
        command.env("DEVICE", "cuda").env("TOLERANCE", tolerance);
        if !tf32 {
            command.env("NVIDIA_TF32_OVERRIDE", "0");
        }
        if setting.dry {
            seen.add("tests", pass(command.arg("the_state_dict")));
            break;
        }
        seen.add(name, pass(&mut command));
    }
    Ok(())
}

pub(crate) fn memcheck(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    const SANITIZER: &str = "compute-sanitizer";
    let arguments = ["4", "64", "2", "2", "cuda"];
    if setting.dry {
        let mut command = Command::new(step()?);
        let fake = setting.fake()?;
        prepare(fake.as_ref(), "0", &mut command);
        let (good, text) = output(command.args(arguments));
        assert!(good, "the steps fail: {text}");
        return Err(Waits::for_("a GPU and compute-sanitizer"));
    }
    if !exists(SANITIZER) {
        return Err(Waits::for_(SANITIZER));
    }
    let mut command = Command::new(SANITIZER);
    command
        .args(["--tool", "memcheck", "--error-exitcode", "9"])
        .arg(step()?)
        .args(arguments);
    let (good, text) = output(&mut command);
    let summary = text.lines().find(|line| line.contains("ERROR SUMMARY"));
    let summary = summary.map_or("no summary", |line| line.trim_start_matches(['=', ' ']));
    seen.add("it says", summary);
    assert!(good && summary.ends_with(" 0 errors"), "{summary}\n{text}");
    Ok(())
}
