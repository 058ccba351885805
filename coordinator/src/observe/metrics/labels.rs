//! The values that labels may take: closed sets, so that the number of series is bounded.

use coordinator_core::event::{Outcome, RunError, StopReason};
use tonic::Code;

macro_rules! labels {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// Every value; the set of series is fixed.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value of the label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

labels! {
    /// Label `state` of `run_state`.
    RunState {
        /// Workers are still missing.
        Waiting = "waiting",
        /// Workers read and decode the data.
        Preparing = "preparing",
        /// An epoch is under way.
        Training = "training",
        /// The epoch's weights are being validated.
        Validating = "validating",
        /// Predictions and curves are being written.
        Finishing = "finishing",
        /// The run ended by its rule.
        Finished = "finished",
        /// The run ended by an error.
        Failed = "failed",
    }
}
labels! {
    /// Label `state` of `workers`.
    WorkerState {
        /// Workers that the run is meant to have.
        Expected = "expected",
        /// Connected.
        Joined = "joined",
        /// Part of the current generation and alive.
        Healthy = "healthy",
        /// Lost, and neither replaced nor come back.
        Lost = "lost",
    }
}
labels! {
    /// Label `grpc_method`: the methods of `trainer.v1.Trainer`.
    Method {
        /// The session of a worker.
        Session = "Session",
        /// A state or predictions, to the run directory.
        Upload = "Upload",
        /// A state, from the run directory.
        Download = "Download",
        /// The files of the data folder.
        ListImages = "ListImages",
        /// Their bytes.
        GetImages = "GetImages",
        /// Any other path.
        Other = "other",
    }
}

impl Method {
    /// Label `grpc_service`.
    #[must_use]
    pub fn service(self) -> &'static str {
        match self {
            Self::Other => "other",
            _ => "trainer.v1.Trainer",
        }
    }

    /// Label `grpc_type`.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Session => "bidi_stream",
            Self::Upload => "client_stream",
            Self::Download | Self::GetImages => "server_stream",
            Self::ListImages | Self::Other => "unary",
        }
    }
}

/// Label `grpc_code`: the name of a status code, as gRPC's own instrumentation has it.
pub(super) fn code_label(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What label `reason` of `stop_reason_info` may be: a stop reason of the core, or that too few
/// workers were left.
pub const STOP_LABELS: [&str; 5] = [
    StopReason::Patience.label(),
    StopReason::MaxEpochs.label(),
    StopReason::NonFiniteLoss.label(),
    StopReason::Interrupted.label(),
    WORKER_LOST,
];

const WORKER_LOST: &str = "worker_lost";

/// Which of [`STOP_LABELS`] an outcome has; other errors have none.
#[must_use]
pub fn stop_label(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Ok(reason) => Some(reason.label()),
        Err(RunError::TooFewWorkers { .. } | RunError::GroupsFailing { .. }) => Some(WORKER_LOST),
        Err(_) => None,
    }
}
