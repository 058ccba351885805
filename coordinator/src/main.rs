//! `coordinator`: the command line, one run, the exit code.

use std::process::ExitCode as ProcessExit;

use clap::Parser;
use coordinator::app::exit::Failure;
use coordinator::app::run::run;
use coordinator::cli::args::{Cli, Command, ExitCode};

fn main() -> ProcessExit {
    let mut cli = Cli::parse();
    match cli.command.take() {
        Some(Command::Fetch(arguments)) => {
            return match arguments.run() {
                Ok(_) => ExitCode::Success.into(),
                Err(error) => fail(&Failure::fetch(error)),
            };
        }
        Some(Command::Health(arguments)) => return arguments.run(),
        None => {}
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::internal(error)),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code.into(),
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ProcessExit {
    eprintln!("error: {}", failure.message);
    failure.code.into()
}
