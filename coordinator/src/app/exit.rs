//! The exit code of a run, and the message of one that did not succeed.

use std::collections::BTreeMap;

use common::text::printable;

use crate::cli::args::ExitCode;
use crate::config::ConfigError;
use crate::launcher::{LaunchError, WorkerExit};
use crate::net::bind::BindError;
use crate::rpc::access::AccessError;
use crate::store::StoreError;
use coordinator_core::event::{Outcome, RunError, StopReason};

/// Log lines of a dead worker that are shown.
const TAIL_LINES: usize = 5;

/// Why a run did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub code: ExitCode,
    /// For the user, with the way out. Names from outside are escaped; the lines are the program's.
    pub message: String,
}

/// The exit code of a run.
///
/// # Errors
/// For a run that failed: the message, with the log lines of the worker process that explains it.
pub fn exit_status(
    outcome: Outcome,
    exits: &BTreeMap<u32, WorkerExit>,
) -> Result<ExitCode, Failure> {
    let error = match outcome {
        Ok(StopReason::Patience | StopReason::MaxEpochs) => return Ok(ExitCode::Success),
        Ok(StopReason::NonFiniteLoss) => return Ok(ExitCode::NonFiniteLoss),
        Ok(StopReason::Interrupted) => return Ok(ExitCode::Interrupted),
        Err(error) => error,
    };
    let exit = (error.local_rank()).and_then(|local_rank| exits.get(&local_rank));
    let code = match &error {
        RunError::Data(_) => ExitCode::Data,
        RunError::Weights(_) => ExitCode::Weights,
        RunError::Environment(_) => ExitCode::Environment,
        RunError::RunDirectory(_) => ExitCode::RunDirectory,
        RunError::BestWeightsAbsent { .. } => ExitCode::Interrupted,
        RunError::BestWeightsLost { .. }
        | RunError::WorkerDefect { .. }
        | RunError::InconsistentEpoch { .. } => ExitCode::Internal,
        RunError::ExitedEarly { .. } if exit.is_some_and(WorkerExit::lacks_libtorch) => {
            ExitCode::Environment
        }
        RunError::TooFewWorkers { .. }
        | RunError::GroupsFailing { .. }
        | RunError::ExitedEarly { .. } => ExitCode::WorkerLost,
    };
    let mut message = printable(&error.to_string());
    if let Some(exit) = exit {
        if !error.tells_exit() {
            message.push_str(&format!("; its process {}", exit.status));
        }
        if let Some(explanation) = exit.explanation() {
            message.push_str(&format!("\n  {explanation}"));
        }
        // A process that never joined explains itself in its first lines, any other in its last.
        let (part, lines) = match error {
            RunError::ExitedEarly { .. } => ("beginning", exit.log_head.as_slice()),
            _ => {
                let tail = exit.log_tail.len().saturating_sub(TAIL_LINES);
                ("end", &exit.log_tail[tail..])
            }
        };
        message.push_str(&format!("\n  the {part} of {}:", exit.log_path.display()));
        for line in lines {
            message.push_str(&format!("\n    {}", printable(line)));
        }
    }
    Err(Failure { code, message })
}

impl Failure {
    /// A flag or setting that makes no sense.
    pub fn usage(message: String) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// A download that failed.
    pub fn fetch(error: impl std::fmt::Display) -> Self {
        Self::new(ExitCode::Fetch, error)
    }

    /// A defect of the program or the machine.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(ExitCode::Internal, error)
    }

    fn new(code: ExitCode, message: impl std::fmt::Display) -> Self {
        let message = printable(&message.to_string());
        Self { code, message }
    }
}

macro_rules! exit_codes {
    ($($error:ty => $code:ident,)+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(ExitCode::$code, error)
            }
        }
    )+};
}

exit_codes! {
    ConfigError => Usage,
    AccessError => Usage,
    LaunchError => Environment,
    BindError => Address,
    StoreError => RunDirectory,
}

#[cfg(test)]
mod tests {
    use coordinator_core::event::ProcessStatus;

    use super::*;

    #[test]
    fn a_log_keeps_its_lines_and_text_from_outside_adds_none() {
        let exit = WorkerExit {
            local_rank: 0,
            pid: 1,
            status: ProcessStatus::Code(1),
            stopped: false,
            log_path: "run/logs/worker-0.log".into(),
            log_head: vec!["first".to_owned(), "\u{1b}[2Jsecond".to_owned()],
            log_tail: Vec::new(),
        };
        let error = RunError::ExitedEarly {
            local_rank: 0,
            status: ProcessStatus::Code(1),
        };
        let failure = exit_status(Err(error), &BTreeMap::from([(0, exit)])).unwrap_err();
        let lines: Vec<&str> = failure.message.lines().collect();
        assert_eq!(
            lines[lines.len() - 2..],
            ["    first", r"    \u{1b}[2Jsecond"]
        );

        let weights = RunError::Weights("a\nfinished.pth: is empty".to_owned());
        let failure = exit_status(Err(weights), &BTreeMap::new()).unwrap_err();
        assert_eq!(failure.message, r"a\nfinished.pth: is empty");
    }
}
