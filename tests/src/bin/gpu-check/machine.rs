//! The machine: its driver, shared memory and NCCL.

use std::process::Command;

use crate::launches::{exists, output};
use crate::numerics::c10d_tests;
use crate::report::Seen;
use crate::setting::{Setting, Waits, prepare};

/// The first driver for CUDA 13.
const DRIVER: u32 = 580;
const NCCL: &str = "2.28.9";

pub(crate) fn check(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let memory = rustix::fs::statvfs("/dev/shm").expect("shared memory");
    let gib = (memory.f_blocks * memory.f_frsize) as f64 / f64::from(1 << 30);
    seen.figure("/dev/shm, GiB", gib);
    if setting.dry {
        let fake = setting.fake()?;
        let mut command = c10d_tests()?;
        command.args([
            "--exact",
            "nccl::every_machine_says_whether_it_has_gpus_or_why_not",
        ]);
        prepare(fake.as_ref(), "0", &mut command);
        let (good, text) = output(&mut command);
        assert!(good, "the tests do not find the GPU: {text}");
        return Ok(());
    }
    if !exists("nvidia-smi") {
        return Err(Waits::for_("nvidia-smi"));
    }
    let query = [
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
    ];
    let (good, text) = output(Command::new("nvidia-smi").args(query));
    let first = text.lines().next().unwrap_or_default();
    assert!(good, "nvidia-smi says: {first}");
    seen.add("GPU, driver, memory", first);
    seen.add("GPUs", text.lines().count());
    let driver = first
        .split(", ")
        .nth(1)
        .and_then(|version| version.split('.').next());
    let driver: u32 = driver.and_then(|major| major.parse().ok()).unwrap_or(0);
    assert!(driver >= DRIVER, "driver {driver} is older than {DRIVER}");

    let mut command = c10d_tests()?;
    command
        .args(["--ignored", "--nocapture", "nccl::"])
        .env("NCCL_DEBUG", "VERSION");
    let (_, text) = output(&mut command);
    let version = text.split("NCCL version ").nth(1);
    let version = version.and_then(|rest| rest.split(['+', ' ', '\n']).next());
    let version = version.unwrap_or("that does not say its version");
    seen.add("NCCL", version);
    assert_eq!(version, NCCL, "the version of NCCL");
    Ok(())
}
