//! What a run that did not succeed tells the user: one message and an exit code.

use crate::cli::args::ExitCode;
use crate::cli::fetch::FetchError;
use crate::config::ConfigError;
use crate::launcher::{LaunchError, WorkerExit};
use crate::net::bind::BindError;
use crate::observe::KeepError;
use crate::rpc::access::AccessError;
use crate::store::StoreError;
use coordinator_core::event::{Outcome, RunError, StopReason};

/// Log lines of a dead worker that are shown.
const TAIL_LINES: usize = 5;

/// A message for the user and the code that goes with it.
#[derive(Debug)]
pub struct Failure(pub ExitCode, pub String);

/// The exit code of a run.
///
/// # Errors
/// For a run that failed: the message, with what the process that was lost left behind.
pub fn exit_status(outcome: Outcome, exits: &[WorkerExit]) -> Result<ExitCode, Failure> {
    let error = match outcome {
        Ok(StopReason::Patience | StopReason::MaxEpochs) => return Ok(ExitCode::Success),
        Ok(StopReason::NonFiniteLoss) => return Ok(ExitCode::NonFiniteLoss),
        Ok(StopReason::Interrupted) => return Ok(ExitCode::Interrupted),
        Err(error) => error,
    };
    let exit = error.local_rank().and_then(|local_rank| {
        exits
            .iter()
            .rfind(|exit| exit.local_rank == local_rank as usize)
    });
    let code = match &error {
        RunError::Data(_) => ExitCode::Data,
        RunError::Weights(_) => ExitCode::Weights,
        RunError::Environment(_) => ExitCode::Environment,
        RunError::RunDirectory(_) => ExitCode::RunDirectory,
        RunError::BestWeightsLost { .. }
        | RunError::WorkerDefect { .. }
        | RunError::InconsistentEpoch { .. } => ExitCode::Internal,
        RunError::ExitedEarly { .. } if exit.is_some_and(|e| e.missing_library().is_some()) => {
            ExitCode::Environment
        }
        RunError::TooFewWorkers { .. }
        | RunError::GroupsFailing { .. }
        | RunError::ExitedEarly { .. } => ExitCode::WorkerLost,
    };
    let mut message = error.to_string();
    if let Some(exit) = exit {
        message.push_str(&format!("; its process {}", exit.status));
        if let Some(explanation) = exit.explanation() {
            message.push_str(&format!("\n  {explanation}"));
        }
        // A process that never joined says why in its first lines, others in their last.
        let (part, lines) = match error {
            RunError::ExitedEarly { .. } => ("beginning", exit.log_head.as_slice()),
            _ => {
                let tail = exit.log_tail.len().saturating_sub(TAIL_LINES);
                ("end", &exit.log_tail[tail..])
            }
        };
        message.push_str(&format!("\n  the {part} of {}:", exit.log_path.display()));
        for line in lines {
            message.push_str(&format!("\n    {line}"));
        }
    }
    Err(Failure(code, message))
}

impl Failure {
    /// A refusal of what was asked for.
    pub fn usage(message: String) -> Self {
        Self(ExitCode::Usage, message)
    }

    /// A refusal that is a defect of the program or the machine.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self(ExitCode::Internal, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self(ExitCode::Usage, error.to_string())
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Self(ExitCode::Usage, error.to_string())
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        Self(ExitCode::Environment, error.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self(ExitCode::Address, error.to_string())
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        Self(ExitCode::RunDirectory, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(ExitCode::RunDirectory, error.to_string())
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self(ExitCode::Fetch, error.to_string())
    }
}
