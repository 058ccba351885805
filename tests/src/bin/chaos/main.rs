//! `make chaos`: the whole fault matrix on real processes, or random faults for some minutes.
//! It fails when any run ends otherwise than the undisturbed one.
//!
//! Variables: `SEED` repeats what was drawn before, `MINUTES` asks for random faults on a long
//! run, `ONLY` picks the cells of the matrix whose name contains it, or `figures`.

mod figures;
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
        Some(minutes) => random::run(minutes.parse().context("MINUTES is a number")?, seed)?,
        None => {
            let only = variable("ONLY");
            let figures = only.as_deref().is_none_or(|only| only == "figures");
            let same = matrix::run(only.as_deref(), seed);
            same & (!figures || figures::run(seed))
        }
    };
    Ok(if same {
        println!("\nno difference");
        ExitCode::SUCCESS
    } else {
        println!("\nthere are differences; SEED={seed} repeats them");
        ExitCode::FAILURE
    })
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs `work`, whose panics are an answer too: that of a harness which did not find what it
/// expects. The panic itself is on stderr by then.
fn caught<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.unwrap_or_else(|| "the harness gave up".to_owned());
            text.lines().next().unwrap_or_default().to_owned()
        })
    })
}
