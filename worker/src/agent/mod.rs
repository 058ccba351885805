//! The worker's side of the wire, over any number of sessions. It touches no tensor and
//! decides nothing about training.
//!
//! ```text
//! connect ─▶ registered ─▶ serve ─▶ shutdown: done
//!    ▲                       │ the session breaks
//!    └── retain the state ◀──┘
//! ```

mod address;
mod connect;
mod convert;
mod health;
mod preflight;
mod serve;
mod session;
mod setup;
mod transfer;

use std::ffi::OsString;
use std::time::Duration;

use common::logging::LogTrace;
use common::trace::{Spans, TraceId};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use self::address::interface;
use self::connect::{Coordinator, ParentPipe};
use self::health::Health;
use self::serve::Trainer;
use self::session::{Identity, Session};
use crate::cli::Cli;
use crate::error::AgentError;

/// Why a worker ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The run is over, or its coordinator was stopped and may resume it.
    ByCoordinator,
    /// SIGTERM.
    AskedToEnd,
}

/// Joins the run at `cli.coordinator` and trains until it ends, also when the coordinator is
/// unavailable for a while. `logs` carry the trace of the run from then on.
///
/// # Errors
/// The coordinator cannot be reached, refuses the worker, or does not come back; or training
/// fails.
pub async fn run(cli: &Cli, logs: &LogTrace) -> Result<Ended, AgentError> {
    let local_rank = local_rank(std::env::var_os(proto::LOCAL_RANK_VARIABLE))?;
    let who = Identity::new(local_rank)
        .map_err(|error| AgentError::Training(format!("cannot generate an id: {error}")))?;
    let health = Health::start(cli.health_file.as_deref())
        .await
        .map_err(|error| AgentError::Usage(format!("cannot write --health-file: {error}")))?;
    let ended = join(cli, logs, who, local_rank.is_some(), &health).await;
    health.stop().await;
    ended
}

/// Joins the run. `launched` is whether a coordinator started this worker.
async fn join(
    cli: &Cli,
    logs: &LogTrace,
    who: Identity,
    launched: bool,
    health: &Health,
) -> Result<Ended, AgentError> {
    let mut asked_to_end = signal(SignalKind::terminate())
        .map_err(|error| AgentError::Training(format!("cannot watch for signals: {error}")))?;
    let patience = Duration::from_secs(cli.connect_timeout.into());
    let mut parent = launched.then(ParentPipe::of_process);
    let coordinator = Coordinator::of(cli)?;
    let first = tokio::select! {
        first = session::open(&coordinator, who, patience) => first?,
        () = ParentPipe::closed(&mut parent) => {
            let cause = "the coordinator that started this worker has exited".to_owned();
            return Err(AgentError::Broken(cause));
        }
        _ = asked_to_end.recv() => return Ok(Ended::AskedToEnd),
    };
    let run_id = first.registered.run_id.clone();
    let trace = TraceId::of_run(&run_id);
    logs.set(trace);
    tracing::info!("joined run {run_id}, trace {trace}");
    if let Some(libtorch) = c10d::process::libtorch() {
        tracing::info!("libtorch: {}", libtorch.display());
    }
    let prepared = setup::prepare(cli, &coordinator, &first.client, &first.registered).await?;
    let spans = Spans::start(&prepared.otlp_endpoint, "finetune-worker", trace);
    let run = JoinedRun {
        coordinator: &coordinator,
        who,
        run_id,
        hold_timeout: prepared.hold_timeout,
        trainer: Trainer::start(prepared.setup, prepared.warnings, spans.clone())?,
    };
    let ended = run.stay(first, health, &mut asked_to_end).await;
    if let Some(spans) = spans {
        spans.finish().await;
    }
    ended
}

/// The local rank that the coordinator gave this process; none when a user started it.
fn local_rank(variable: Option<OsString>) -> Result<Option<u32>, AgentError> {
    let Some(value) = variable else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        AgentError::Usage(format!(
            "{} is {value:?}, which is no local rank; only a coordinator sets it, for the workers \
             that it starts: unset it",
            proto::LOCAL_RANK_VARIABLE
        ))
    })
}

/// The run that this worker has joined.
struct JoinedRun<'a> {
    coordinator: &'a Coordinator,
    who: Identity,
    run_id: String,
    /// How long the worker tries to reach a lost coordinator.
    hold_timeout: Duration,
    trainer: Trainer,
}

impl JoinedRun<'_> {
    /// Serves one session after another until the run ends.
    async fn stay(
        mut self,
        mut session: Session,
        health: &Health,
        asked_to_end: &mut Signal,
    ) -> Result<Ended, AgentError> {
        loop {
            health.set(health::State::Joined(self.trainer.activity.clone()));
            match self.trainer.serve(session, asked_to_end).await {
                Err(AgentError::Broken(cause)) => {
                    let seconds = self.hold_timeout.as_secs();
                    tracing::warn!(
                        cause,
                        "lost the coordinator; retaining the state and retrying for {seconds} s"
                    );
                    health.set(health::State::Reconnecting);
                }
                ended => return ended,
            }
            session = tokio::select! {
                session = session::open(self.coordinator, self.who, self.hold_timeout) => session?,
                _ = asked_to_end.recv() => return Ok(Ended::AskedToEnd),
            };
            if session.registered.run_id != self.run_id {
                let message = "another run is at this address; start a new worker to join it";
                return Err(AgentError::Refused(message.to_owned()));
            }
            tracing::info!("rejoined the run");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_local_rank_is_a_number_or_absent() {
        assert_eq!(local_rank(None).unwrap(), None);
        assert_eq!(local_rank(Some("3".into())).unwrap(), Some(3));
        let unreadable = OsString::from_vec(vec![0xff]);
        for wrong in ["".into(), "-1".into(), "three".into(), unreadable] {
            let refused = local_rank(Some(wrong)).unwrap_err().to_string();
            assert!(refused.contains("FINETUNE_LOCAL_RANK"), "{refused}");
        }
    }
}
