//! `make gpu-check`: what must be seen on a GPU, row by row; or, with `DRY=1`, how far the same rows
//! come over the fake GPU of `tests/fakegpu/`.
//!
//! It needs neither cargo nor Python, but for the row that runs `make bench`.

#![allow(
    clippy::expect_used,
    reason = "a row fails by panicking, as the harness does"
)]

mod benchmark;
mod errors;
mod faults;
mod launches;
mod machine;
mod numerics;
mod real_nccl;
mod report;
mod rows;
mod runs;
mod setting;
mod speed;
mod two_ranks;

use std::process::ExitCode;

use anyhow::Context;

use crate::report::Report;
use crate::setting::Setting;

const HELP: &str = "Checks this project on the GPUs of this machine, and prints a table in Markdown.

Variables:
  PART=N               only the rows of this part; each takes less than 10 minutes on an H100
  ROW=N                only this row
  DRY=1                over the fake GPU, with short runs: no row can pass
  RESULTS=DIR          where part-N.json and table.md go [default: target/gpu-check]
  BINARIES=DIR         the folder of prebuilt programs [default: that of this one]: coordinator,
                       worker, libc10d_nccl.so, libfakegpu.so, libfakenccl.so, and, in it or where
                       cargo puts them, the example `step` and the tests `parity` and `c10d-tests`
  LD_LIBRARY_PATH=DIR  the folder `lib` of an existing torch 2.11.0, where it is not that of the build

Exit codes: 0 no row failed, 1 a row failed, 2 a variable is wrong";

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().len() > 1 {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let number = |name| -> anyhow::Result<Option<u32>> {
        let value = setting::variable(name).map(|value| value.parse());
        value
            .transpose()
            .with_context(|| format!("{name} is a number"))
    };
    let (part, row) = match (number("PART"), number("ROW")) {
        (Ok(part), Ok(row)) => (part, row),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    let setting = Setting::new();
    let chosen = |each: &&rows::Row| {
        part.is_none_or(|part| each.part == part) && row.is_none_or(|row| each.number == row)
    };
    let mut report = Report::new(&setting)?;
    for row in rows::ROWS.iter().filter(chosen) {
        let outcome = row.judge(&setting);
        println!("{}", outcome.line());
        report.add(row.part, outcome)?;
    }
    println!("\n{}", report.table()?);
    Ok(match report.failed() {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    })
}
