//! Starts the real binaries, waits for what they say, strikes them, and leaves no process behind.
//! Whatever it is told to expect and does not find, it panics about: it is for tests.

#![allow(clippy::expect_used, reason = "a test harness fails by panicking")]

mod ended;
mod journal;
mod process;
mod programs;
mod run;

pub mod baseline;
pub mod disk;
pub mod fault;
pub mod injection_point;
pub mod metrics;
pub mod network;

pub use ended::Ended;
pub use journal::journal;
pub use process::{Process, alive, all_gone, go_on, kill, pause, terminate};
pub use programs::{binary, coordinator, scratch, worker};
pub use run::Run;

/// The settings of a run that takes seconds: few small demo images, and nothing whose result
/// depends on how the samples lie on the ranks.
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

/// Beside [`SMALL`]: long enough to be hit in the middle, and with rates under which Adam does
/// not divide noise by noise, so that weights can be compared.
pub const STEADY: &[&str] = &[
    "--epochs=3",
    "--patience=9",
    "--layer-lr=uniform=1e-5",
    "--lr-schedule=constant",
    "--seed=11",
];
/// Epochs of a run with [`STEADY`].
pub const STEADY_EPOCHS: usize = 3;
/// Steps of each: 96 samples by 16.
pub const STEADY_STEPS: usize = 6;

fn read(path: &std::path::Path) -> String {
    // What is not there, or no longer, reads as nothing.
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
