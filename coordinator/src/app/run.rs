//! One run, from the command line to its exit code: its stages and their order. The other files
//! of this folder say what each stage does.
//!
//! ```text
//! Request ─▶ Reserved ─▶ OpenedRun ─▶ Running ─▶ exit code
//! settings   addresses,  run          server,    the processes are reaped,
//!            devices     directory    driver     the files written
//! ```

use std::path::Path;
use std::time::Duration;

use common::logging::{self, LogTrace};
use common::trace::{Spans, TraceId};
use coordinator_core::event::{RunError, StopReason};
use tokio::time::timeout;

use crate::admin::AdminServer;
use crate::app::build::{self, Reserved, Server};
use crate::app::exit::{Failure, exit_status};
use crate::app::open::{self, Request};
use crate::cli::args::{Cli, ExitCode};
use crate::config::LogFormat;
use crate::launcher::LauncherEvent;
use crate::observe::Observers;
use crate::observe::console::Progress;
use crate::rpc::transport::uds::WorkerSocket;
use crate::runtime::{Driver, Inputs};

/// How long workers may take to end once the run has.
const GRACE: Duration = Duration::from_secs(5);
/// How long the exit of a lost worker's process may take to be noticed.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// A longer wait at the end of a run is announced.
const SILENT_LINGER: Duration = Duration::from_secs(2);

/// Runs, or resumes, what `cli` asks for.
///
/// # Errors
/// The message and the exit code of a run that did not succeed.
pub async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Some(request) = Request::of(cli)? else {
        return Ok(ExitCode::Success);
    };
    let json = request.config.log_format == LogFormat::Json;
    let (progress, level) = match json {
        true => (Progress::log(), "info"),
        false => (Progress::terminal(), "warn"),
    };
    let progress = progress.map_err(Failure::internal)?;
    let logs = logging::init(json, level, progress.log_writer()).map_err(Failure::internal)?;
    match perform(&request, progress, &logs).await {
        // The last line has the format of the others.
        Err(failure) if json => {
            tracing::error!("{}", failure.message);
            Ok(failure.code)
        }
        result => result,
    }
}

async fn perform(
    request: &Request,
    mut progress: Progress,
    logs: &LogTrace,
) -> Result<ExitCode, Failure> {
    request.notes.iter().for_each(|note| progress.say(note));
    // Before the run directory: a run that cannot start must not leave one behind.
    let reserved = Reserved::take(request, &mut progress).await?;
    let opened = open::open(request)?;
    let trace = TraceId::of_run(&opened.run_id);
    logs.set(trace);
    tracing::info!("run {}, trace {trace}", opened.run_id);
    let running = build::build(request, reserved, opened, trace, progress).await?;
    running.finish().await
}

/// Everything of a run that has started.
pub(super) struct Running {
    pub(super) driver: Driver,
    pub(super) inputs: Inputs,
    pub(super) services: Services,
}

/// The tasks beside the driver, which are closed after it.
pub(super) struct Services {
    pub(super) server: Server,
    /// The file of the local workers' socket, which it removes.
    pub(super) socket: Option<WorkerSocket>,
    pub(super) admin: AdminServer,
    /// Sends the last spans.
    pub(super) traces: Option<Spans>,
    pub(super) metrics_linger: Option<Duration>,
}

impl Running {
    /// Drives the run to its end, ends the processes, waits until everything is durable, and closes
    /// the servers.
    async fn finish(self) -> Result<ExitCode, Failure> {
        let Self {
            mut driver,
            mut inputs,
            services,
        } = self;
        let outcome = driver.drive(&mut inputs).await;
        // Workers that connect from now on are told that the run is over.
        inputs.inbox.close();
        // Those that wait for an answer get none, and hear the same.
        while inputs.inbox.try_recv().is_some() {}
        if let Some(local_rank) = outcome.as_ref().err().and_then(RunError::local_rank) {
            await_exit(local_rank, driver.observers(), &mut inputs).await;
        }
        if let Some(launcher) = driver.launcher() {
            launcher.shutdown(GRACE).await;
        }
        // The run is not reported as ended before its results are durable.
        let flushed = driver.flush(&outcome, &mut inputs.recorded).await;
        let observers = driver.observers();
        let files = files(observers.run_dir());
        observers.ended(&outcome, files);
        let completed =
            flushed.is_ok() && matches!(outcome, Ok(StopReason::Patience | StopReason::MaxEpochs));
        services.close(completed, &mut inputs, observers).await;
        match (&outcome, flushed) {
            (Ok(_), Err(message)) => Err(Failure {
                code: ExitCode::RunDirectory,
                message,
            }),
            _ => exit_status(outcome, driver.observers().exits()),
        }
    }
}

/// The process of a lost worker tells why the run failed, once it is reaped.
async fn await_exit(local_rank: u32, observers: &mut Observers, inputs: &mut Inputs) {
    let wait = timeout(EXIT_WAIT, async {
        while !observers.exits().contains_key(&local_rank) {
            match inputs.processes.recv().await {
                Some(LauncherEvent::Exited(exit)) => observers.exited(exit),
                Some(LauncherEvent::Started { local_rank, .. }) => observers.started(local_rank),
                Some(LauncherEvent::Failed { .. }) => {}
                None => break,
            }
        }
    });
    // Without the exit the message has less to say.
    let _ = wait.await;
}

/// The names of the files in a folder; none if it cannot be read.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

impl Services {
    /// Serves the last values to Prometheus, unless a signal cuts that short, then closes.
    async fn close(self, completed: bool, inputs: &mut Inputs, observers: &mut Observers) {
        if let Some(traces) = self.traces {
            traces.finish().await;
        }
        let linger = self.admin.linger(self.metrics_linger, completed);
        if linger > SILENT_LINGER {
            let address = self.admin.address();
            observers.say(&format!(
                "serving http://{address}/metrics for {} s more; Ctrl-C ends now",
                linger.as_secs()
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(linger) => {}
            _ = inputs.interrupts.recv() => {}
        }
        self.admin.stop().await;
        // Workers of other machines still have to read their last message.
        let Server { mut task, close } = self.server;
        drop(close);
        if timeout(GRACE, &mut task).await.is_err() {
            task.abort();
        }
        // While the run directory is still locked: the next coordinator has its socket there.
        drop(self.socket);
    }
}
