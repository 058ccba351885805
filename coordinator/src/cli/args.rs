//! The command line, its help, and the exit codes. It only parses: `config` decides what a missing
//! flag means.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::fetch::FetchArgs;
use crate::cli::health::HealthArgs;
use crate::config::Settings;

/// The exit code of a process, for scripts and orchestrators; `--help` lists the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The run ended by early stopping or after its last epoch, and its results are written.
    Success = 0,
    /// A flag, variable or file key is wrong, alone or with others.
    Usage = 2,
    /// The data set is missing, empty, unreadable or differs between workers.
    Data = 3,
    /// The pretrained weights are missing or of another architecture.
    Weights = 4,
    /// A listening address cannot be bound.
    Address = 5,
    /// The run directory cannot be created or written.
    RunDirectory = 6,
    /// A worker was lost and the run could not go on.
    WorkerLost = 7,
    /// libtorch, a GPU or the worker program is missing.
    Environment = 8,
    /// A defect of the program itself.
    Internal = 9,
    /// The loss became infinite or not a number.
    NonFiniteLoss = 10,
    /// A download failed; what arrived is kept where that makes sense.
    Fetch = 11,
    /// Ctrl-C or SIGTERM; the best weights so far are kept.
    Interrupted = 130,
}

impl ExitCode {
    /// The number that the operating system sees.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The description of each in `--help`.
const MEANINGS: [(ExitCode, &str); 12] = [
    (
        ExitCode::Success,
        "finished; results are in the run directory",
    ),
    (ExitCode::Usage, "a flag or configuration value is wrong"),
    (
        ExitCode::Data,
        "the data set is missing, unusable or differs between workers",
    ),
    (
        ExitCode::Weights,
        "the pretrained weights are missing or do not fit",
    ),
    (ExitCode::Address, "a listening address cannot be bound"),
    (
        ExitCode::RunDirectory,
        "the run directory cannot be created or written",
    ),
    (
        ExitCode::WorkerLost,
        "a worker was lost and the run could not go on",
    ),
    (
        ExitCode::Environment,
        "libtorch, a GPU or the worker program is missing",
    ),
    (ExitCode::Internal, "internal error"),
    (
        ExitCode::NonFiniteLoss,
        "the loss became infinite or not a number",
    ),
    (
        ExitCode::Fetch,
        "a download failed; the same command resumes it",
    ),
    (
        ExitCode::Interrupted,
        "interrupted; the best weights so far are kept",
    ),
];

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// Fine-tunes ResNet18 across worker processes under one coordinator.
///
/// The coordinator starts the workers, assigns the shards, decides when to stop, and keeps the
/// results. Each setting can also be given in a TOML file (--config, with keys named like the
/// flags) or in the environment (FINETUNE_GLOBAL_BATCH for --global-batch). A flag overrides the
/// environment, the environment overrides the file, and the file overrides the default.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = after_help(), args_override_self = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// TOML file with settings. The config.toml of an earlier run repeats that run
    #[arg(
        long,
        value_name = "FILE",
        env = "FINETUNE_CONFIG",
        help_heading = "Run"
    )]
    pub config: Option<PathBuf>,

    /// Resume the run in DIR, which was stopped or whose coordinator died
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "run_dir"], help_heading = "Run")]
    pub resume: Option<PathBuf>,

    /// Resume the run in --run-dir if there is one, else start it there. For supervisors that
    /// start the same command again
    #[arg(
        long,
        env = "FINETUNE_RESUME_IF_EXISTS",
        conflicts_with = "resume",
        help_heading = "Run"
    )]
    pub resume_if_exists: bool,

    /// The settings of a run.
    #[command(flatten)]
    pub settings: Settings,

    /// A command other than a run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Downloads Caltech101 or torchvision's ImageNet weights, checked and resumable
    Fetch(FetchArgs),
    /// Checks whether a coordinator answers: exit code 0 or 1, for container health checks
    Health(HealthArgs),
}

fn after_help() -> String {
    let mut text = String::from(
        "Examples:
  coordinator --workers 2                        two workers on the built-in demo set
  coordinator fetch caltech101                   download the images once
  coordinator fetch weights                      download the ImageNet weights once
  coordinator --workers 4                        then: the full recipe, one GPU each
  coordinator --workers 2 --data DIR --epochs 3  your own images, DIR/<class>/*
  coordinator --workers 2 --no-spawn --listen 0.0.0.0:7000 --token-file FILE
                                                 wait for workers started elsewhere with
                                                 `worker --coordinator http://HOST:7000
                                                 --token-file FILE`
  coordinator --config runs/A/config.toml        repeat a run
  coordinator --resume runs/A                    resume a run that was stopped

Exit codes:
",
    );
    for (code, meaning) in MEANINGS {
        text.push_str(&format!("  {:>3}  {meaning}\n", code.code()));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_teaches() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        for expected in [
            "Examples:",
            "--layer-lr",
            "130  interrupted",
            "Data:",
            "Model and recipe:",
            "Fault tolerance:",
            "Network and observability:",
        ] {
            assert!(help.contains(expected), "{expected} is missing in:\n{help}");
        }
    }

    #[test]
    fn flags_parse_and_misspelt_ones_are_guessed() {
        let cli = Cli::try_parse_from(["coordinator", "--workers", "2", "--no-spawn"]).unwrap();
        assert_eq!(
            (cli.settings.workers, cli.settings.no_spawn),
            (Some(2), Some(true))
        );
        let wrong = Cli::try_parse_from(["coordinator", "--global-bacth", "2"]).unwrap_err();
        assert_eq!(wrong.exit_code(), i32::from(ExitCode::Usage.code()));
        assert!(wrong.to_string().contains("--global-batch"), "{wrong}");
    }
}
