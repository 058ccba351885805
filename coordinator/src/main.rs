//! `coordinator`: flags, logs, addresses, workers, the run, exit code.

use std::net::SocketAddr;
use std::process::ExitCode as ProcessExit;
use std::time::Duration;

use clap::Parser;
use coordinator::admin::{self, AdminServer, Status};
use coordinator::cli::{Cli, Command, ExitCode};
use coordinator::config::{RunConfig, Sources};
use coordinator::driver::{Driver, Inputs};
use coordinator::launcher::{self, Gpus, LaunchSpec, Launcher, WorkerExit};
use coordinator::metrics::{Metrics, RunFacts};
use coordinator::observe::Observers;
use coordinator::progress::Progress;
use coordinator::recipe;
use coordinator::refusal::{Refusal, conclude, lost_slot};
use coordinator::security::{self, Security};
use coordinator::service::TrainerService;
use coordinator::shutdown::{Signals, Stop};
use coordinator::store::RunStore;
use coordinator::telemetry;
use tokio::sync::{mpsc, oneshot, watch};

/// How long workers may take to end once the run has.
const GRACE: Duration = Duration::from_secs(5);
/// How long the exit of a lost worker's process may take to be noticed.
const EXIT_WAIT: Duration = Duration::from_secs(2);

fn main() -> ProcessExit {
    let mut cli = Cli::parse();
    if let Some(Command::Fetch(arguments)) = cli.command.take() {
        return match arguments.run() {
            Ok(_) => ExitCode::Success.into(),
            Err(error) => refuse(error.into()),
        };
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(Refusal::internal(error)),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code.into(),
        Err(refusal) => refuse(refusal),
    }
}

fn refuse(Refusal(code, message): Refusal) -> ProcessExit {
    eprintln!("error: {message}");
    code.into()
}

async fn run(cli: Cli) -> Result<ExitCode, Refusal> {
    let sources = Sources::of_process(cli.config, cli.settings);
    let loaded = RunConfig::load(&sources)?;
    let config = loaded.config;
    let mut progress = Progress::new();
    telemetry::init(config.log_format, progress.log_writer()).map_err(Refusal::internal)?;
    loaded.notes.iter().for_each(|note| progress.say(note));

    let (placement, note) = Gpus::detect().place(
        config.device,
        if config.no_spawn { 0 } else { config.workers },
    )?;
    note.iter().for_each(|note| progress.say(note));
    let security = Security::new(&config)?;
    security.notes().iter().for_each(|note| progress.say(note));
    let listener = admin::bind(config.listen, "--listen").await?;
    let (metrics_listener, note) = admin::bind_or_free(
        config.metrics_listen,
        "--metrics-listen",
        config.metrics_listen_asked,
    )
    .await?;
    note.iter().for_each(|note| progress.say(note));
    let address = listener.local_addr().map_err(Refusal::internal)?;
    let url = launcher::local_url(security.scheme(), address);

    let store = RunStore::create(&config.run_dir)?;
    let toml = config.to_toml()?;
    store.write_config(&toml)?;
    let logs = store.logs();

    let name = config
        .run_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let registry = prometheus::Registry::new();
    let facts = RunFacts {
        run: name.clone(),
        dataset: config.data.describe(),
        workers: config.workers,
        epochs: config.epochs,
        patience: config.patience,
    };
    let metrics = Metrics::new(&registry, &facts).map_err(Refusal::internal)?;
    let mut first = Status::waiting(name, config.workers, config.epochs);
    first.run_directory = config.run_dir.display().to_string();
    first.coordinator_url.clone_from(&url);
    let (status, watched) = watch::channel(first);
    let admin =
        AdminServer::start(metrics_listener, registry, watched).map_err(Refusal::internal)?;
    progress.say(&format!("metrics: http://{}/metrics", admin.address()));

    let (arrivals, from_edge) = mpsc::unbounded_channel();
    let (close, closing) = oneshot::channel::<()>();
    let (incoming, spawn_url) = security.open(listener, address).await?;
    let mut server = tokio::spawn(
        security::server()
            .layer(security.guard())
            .add_service(TrainerService::new(arrivals.clone()).into_server())
            .serve_with_incoming_shutdown(incoming, async {
                // Dropping the other end means the same.
                let _ = closing.await;
            }),
    );

    let spec = LaunchSpec {
        binary: config
            .worker_binary
            .clone()
            .unwrap_or_else(launcher::default_binary),
        coordinator_url: spawn_url,
        token: security.spawn_token(),
        logs,
        workers: config.workers,
        placement,
        threads_per_worker: config.threads_per_worker,
        log_format: config.log_format,
    };
    // Signals first: an early Ctrl-C must not leave workers behind.
    let (interrupts, from_signals) = mpsc::unbounded_channel();
    watch_signals(interrupts)?;
    let (mut workers, exits) = start_workers(&config, spec, &mut progress, address, &security)?;

    let observers = Observers::new(
        store,
        metrics,
        status,
        progress,
        config.epochs,
        config.patience,
    );
    let mut inputs = Inputs {
        arrivals: from_edge,
        exits,
        interrupts: from_signals,
    };
    let driver = Driver::new(
        recipe::recipe(&config),
        recipe::settings(&config),
        observers,
        arrivals,
    );
    let (outcome, mut observers) = driver.drive(&mut inputs).await;

    if let Some(slot) = outcome.as_ref().err().and_then(lost_slot) {
        let wait = tokio::time::timeout(EXIT_WAIT, async {
            while !observers
                .exits()
                .iter()
                .any(|exit| exit.slot == slot as usize)
            {
                match inputs.exits.recv().await {
                    Some(exit) => observers.exited(exit),
                    None => break,
                }
            }
        });
        // Without the exit the message has less to say.
        let _ = wait.await;
    }
    let mut interrupts = inputs.interrupts;
    if let Some(workers) = &mut workers {
        workers.shutdown(GRACE).await;
    }
    observers.ended(&outcome);
    let unkept = observers.take_broken();
    tokio::select! {
        () = admin.linger(config.metrics_linger) => {}
        _ = interrupts.recv() => {}
    }
    admin.stop().await;
    // Workers that others started have to read their last message.
    drop(close);
    if tokio::time::timeout(GRACE, &mut server).await.is_err() {
        server.abort();
    }
    match (&outcome, unkept) {
        (Ok(_), Some(error)) => Err(error.into()),
        _ => conclude(outcome, observers.exits()),
    }
}

fn start_workers(
    config: &RunConfig,
    spec: LaunchSpec,
    progress: &mut Progress,
    address: SocketAddr,
    security: &Security,
) -> Result<(Option<Launcher>, mpsc::UnboundedReceiver<WorkerExit>), Refusal> {
    if config.no_spawn {
        let (scheme, flags) = (security.scheme(), security.worker_flags());
        progress.say(&format!(
            "waiting for {} workers: start each with `worker --coordinator {}{flags}`",
            config.workers,
            launcher::local_url(scheme, address)
        ));
        if address.ip().is_unspecified() {
            progress.say(&format!(
                "  but when any of them runs on another machine, all with \
                 `worker --coordinator {scheme}://THIS_MACHINE:{}{flags}`",
                address.port()
            ));
        }
        // The sender is dropped: no process of ours will ever end.
        return Ok((None, mpsc::unbounded_channel().1));
    }
    let (mut launcher, exits) = Launcher::new(spec)?;
    for slot in 0..config.workers {
        launcher.spawn(slot)?;
    }
    Ok((Some(launcher), exits))
}

/// The first signal asks the run to stop; a second ends the process, and the workers with it.
fn watch_signals(interrupts: mpsc::UnboundedSender<()>) -> Result<(), Refusal> {
    let mut signals = Signals::install().map_err(Refusal::internal)?;
    tokio::spawn(async move {
        loop {
            match signals.next().await {
                // Nobody listens any more when the run is over anyway.
                Stop::Graceful => drop(interrupts.send(())),
                Stop::Immediate => std::process::exit(ExitCode::Interrupted.code().into()),
            }
        }
    });
    Ok(())
}
