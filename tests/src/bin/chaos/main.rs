//! `make chaos`: every fault at every point of a run of real processes, or random faults for some
//! minutes. It fails if the result of any run differs from that of a run without faults.
//!
//! Variables: `SEED` repeats the random choices of an earlier call, `MINUTES` asks for random
//! faults in a long run, `GPU=fake` for SIGKILL of workers on the fake GPU, `ONLY` selects the faults
//! whose name contains it, or `figures`.

mod figures;
mod gpu;
mod matrix;
mod random;
mod table;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

fn main() -> anyhow::Result<ExitCode> {
    let seed = match variable("SEED") {
        Some(seed) => seed.parse().context("SEED is a number")?,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("SEED={seed}");
    let same = match variable("MINUTES") {
        _ if variable("GPU").is_some_and(|gpu| gpu == "fake") => gpu::run(seed),
        Some(minutes) => random::run(minutes.parse().context("MINUTES is a number")?, seed)?,
        None => {
            let only = variable("ONLY");
            let figures = only.as_deref().is_none_or(|only| only == "figures");
            let same = matrix::run(only.as_deref(), seed);
            same & (!figures || figures::run(seed))
        }
    };
    Ok(if same {
        println!("\nall results are the same");
        ExitCode::SUCCESS
    } else {
        println!("\nresults differ; repeat with SEED={seed}");
        ExitCode::FAILURE
    })
}

/// The value of a variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
