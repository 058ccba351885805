//! The harness of the tests of whole runs: it starts the real binaries, waits for their output,
//! injects faults, and leaves no process behind. It panics when an expectation does not hold.

#![allow(clippy::expect_used, reason = "a test harness fails by panicking")]

mod caught;
mod ended;
mod journal;
mod process;
mod programs;
mod run;

pub mod baseline;
pub mod disk;
pub mod fake_gpu;
pub mod fault;
pub mod injection_point;
pub mod metrics;
pub mod network;
pub mod slow_disk;

pub use caught::caught;
pub use ended::Ended;
pub use journal::journal;
pub use process::{Process, alive, assert_exited, kill, pause, resident_kib, terminate, unpause};
pub use programs::{binary, coordinator, demo_set, folder, scratch, worker};
pub use run::Run;

/// The settings of a run that takes seconds: few small demo images, and a result that does not
/// depend on which rank has which samples.
pub const SMALL: &[&str] = &[
    "--data=demo",
    "--limit-per-class=12",
    "--image-size=32",
    "--global-batch=16",
    "--precision=fp32",
    "--batch-norm=frozen",
    "--device=cpu",
    "--threads-per-worker=1",
    "--layer-lr=uniform=1e-3",
    "--metrics-listen=127.0.0.1:0",
    "--metrics-linger=0",
];

/// In addition to [`SMALL`]: long enough for a fault in the middle, and with a learning rate so
/// small that rounding errors, which Adam amplifies, do not show when weights are compared.
pub const STEADY: &[&str] = &[
    "--epochs=3",
    "--patience=9",
    "--layer-lr=uniform=1e-5",
    "--lr-schedule=constant",
    "--seed=11",
];
/// The epochs of a run with [`STEADY`].
pub const STEADY_EPOCHS: usize = 3;
/// The steps of each epoch: 96 samples in batches of 16.
pub const STEADY_STEPS: usize = 6;

fn read(path: &std::path::Path) -> String {
    // A file that does not exist reads as an empty one.
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
