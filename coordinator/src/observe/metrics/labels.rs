//! The values that labels may take: closed sets, so that the number of series is bounded.

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
    /// Label `split`.
    SplitLabel {
        /// The training set.
        Train = "train",
        /// The validation set.
        Validation = "validation",
    }
}
labels! {
    /// Label `phase` of `phase_duration_seconds`.
    Phase {
        /// The rank waited for its batch.
        DataWait = "data_wait",
        /// Forward and backward pass.
        ForwardBackward = "forward_backward",
        /// The rank waited for the other ranks' gradients.
        AllreduceWait = "allreduce_wait",
        /// The optimizer's update.
        Optimizer = "optimizer",
        /// The rank's part of a validation.
        Validation = "validation",
    }
}
labels! {
    /// Label `cause` of `recovery_duration_seconds`.
    Cause {
        /// A worker's session broke.
        Died = "worker_died",
        /// The coordinator put a worker down that stalled or failed in itself.
        Evicted = "worker_put_down",
        /// Collectives failed among workers that live.
        GroupBroke = "group_broke",
    }
}
labels! {
    /// Label `method` of the calls.
    Method {
        /// `trainer.v1.Trainer/Session`.
        Session = "Session",
        /// `trainer.v1.Trainer/Upload`.
        Upload = "Upload",
        /// `trainer.v1.Trainer/Download`.
        Download = "Download",
        /// `trainer.v1.Trainer/ListImages`.
        ListImages = "ListImages",
        /// `trainer.v1.Trainer/GetImages`.
        GetImages = "GetImages",
        /// Whatever else somebody called.
        Other = "other",
    }
}
labels! {
    /// Label `reason` of `stop_reason_info`.
    StopReason {
        /// Too many epochs without improvement.
        Patience = "patience",
        /// All epochs are done.
        MaxEpochs = "max_epochs",
        /// The loss was infinite or not a number.
        NonFiniteLoss = "non_finite_loss",
        /// A signal.
        Interrupted = "interrupted",
        /// A worker was lost and the run could not go on.
        WorkerLost = "worker_lost",
    }
}
