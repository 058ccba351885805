//! Shows a run: metrics, status page, terminal, traces. It takes no decision and writes no file:
//! what it prepares to be drawn is drawn and kept by the recorder. Each observer takes facts by
//! itself; this module only hands them on.

pub mod console;
pub mod metrics;
pub mod report;
pub mod status;

mod page;
mod results;
mod stragglers;
mod traces;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use common::trace::{Spans, TraceId};
use tokio::sync::watch;

use self::traces::Traces;
use self::view::RunView;
use crate::launcher::WorkerExit;
use crate::net::clock::unix_seconds;
use crate::observe::console::Progress;
use crate::observe::metrics::{Metrics, WorkerState};
use crate::observe::status::{Board, Status};
use crate::store::{JournalLine, RunHistory};
use coordinator_core::early_stopping::Standing;
use coordinator_core::event::Position;
use coordinator_core::words::count;
use coordinator_core::{Fact, WorkerId};
pub use results::{Prediction, Predictions};

/// All observers of a run.
pub struct Observers {
    run_dir: PathBuf,
    started: Instant,
    patience: u32,
    view: RunView,
    metrics: Metrics,
    status: Board,
    progress: Progress,
    traces: Option<Traces>,
    /// Class names, and the paths of all files.
    names: Option<(Vec<String>, Vec<String>)>,
    exits: BTreeMap<u32, WorkerExit>,
}

impl Observers {
    /// Observers of a run of at most `epochs` epochs.
    pub fn new(
        run_dir: PathBuf,
        metrics: Metrics,
        status: (Status, watch::Sender<Arc<Status>>),
        progress: Progress,
        epochs: u32,
        patience: u32,
    ) -> Self {
        let mut status = Board::new(status.0, status.1);
        status.change(|status| status.patience = patience);
        Self {
            run_dir,
            started: Instant::now(),
            patience,
            view: RunView::new(epochs),
            metrics,
            status,
            progress,
            traces: None,
            names: None,
            exits: BTreeMap::new(),
        }
    }

    /// Starts to send the spans of this run to the collector at `endpoint`. The caller finishes
    /// the result after [`Observers::ended`].
    pub fn begin_traces(&mut self, endpoint: &str, trace: TraceId) -> Option<Spans> {
        let spans = Spans::start(endpoint, "finetune-coordinator", trace)?;
        self.traces = Some(Traces::new(spans.clone(), trace));
        self.say(&format!("traces:  {endpoint}, trace {trace}"));
        Some(spans)
    }

    /// Shows what a former coordinator left of the run.
    pub fn remember(&mut self, history: &RunHistory, stopping: Standing) {
        self.progress.say(&format!(
            "resuming after {}{}",
            count(history.epochs.len(), "epoch"),
            match history.checkpoint {
                Some(position) => format!("; the newest checkpoint is at {position}"),
                None => String::new(),
            }
        ));
        self.view.remember(history, stopping);
        self.metrics.stopping(stopping);
        self.status.show_epochs(&self.view);
        if let Some(at) = history.predictions {
            self.predictions_drawn(at);
        }
    }

    /// Shows the events that are in the journal already.
    pub fn remember_events(&mut self, events: Vec<JournalLine>) {
        self.status
            .change(|status| events.into_iter().for_each(|line| status.happened(line)));
    }

    /// Shows a fact.
    pub fn apply(&mut self, fact: Fact) {
        self.view.apply(&fact);
        self.metrics.apply(&fact, &self.view);
        self.status.apply(&fact, &self.view);
        self.progress.apply(&fact, &self.view);
        if let Some(traces) = &mut self.traces {
            traces.apply(&fact);
        }
        if let Fact::SplitReady { classes, files, .. } = fact {
            self.names = Some((classes, files));
        }
    }

    /// Shows an event of the journal.
    pub fn happened(&mut self, line: JournalLine) {
        self.status.change(|status| status.happened(line));
    }

    /// Shows how many workers have joined, and how many of them are in the generation, and gives
    /// readers the newest status. To be called a few times a second.
    pub fn tick(&mut self, joined: usize, healthy: usize) {
        self.census(joined, healthy);
        self.status.publish();
    }

    fn census(&mut self, joined: usize, healthy: usize) {
        let missing = self.view.census(joined);
        self.metrics.set_workers(WorkerState::Joined, joined);
        self.metrics.set_workers(WorkerState::Healthy, healthy);
        self.metrics.set_workers(WorkerState::Lost, missing);
    }

    /// A worker sent a heartbeat.
    pub fn heard(&mut self, worker: WorkerId) {
        if let Some(rank) = self.view.rank(worker) {
            let now = unix_seconds();
            self.metrics.heard(rank, now);
            self.status
                .change_rank(rank, |view| view.heartbeat_timestamp = Some(now));
        }
    }

    /// A checkpoint is durable.
    pub fn checkpoint(&mut self, position: Position, bytes: u64) {
        self.view.checkpoint(position);
        self.metrics.checkpoint(bytes, self.view.checkpoint_lag());
    }

    /// The predictions were drawn, or drawn again.
    pub fn predictions_drawn(&mut self, at: SystemTime) {
        self.status.predictions_drawn(at);
    }

    /// Prints a line.
    pub fn say(&mut self, line: &str) {
        self.progress.say(line);
    }

    /// The run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// How the last process of each local rank ended, if it did.
    pub fn exits(&self) -> &BTreeMap<u32, WorkerExit> {
        &self.exits
    }

    /// A process was started.
    pub fn started(&mut self, local_rank: u32) {
        self.exits.remove(&local_rank);
    }

    /// Remembers a process that ended.
    pub fn exited(&mut self, exit: WorkerExit) {
        self.exits.insert(exit.local_rank, exit);
    }
}
