//! `coordinator`: flags, logs, addresses, workers, the run, exit code.

use std::process::ExitCode as ProcessExit;
use std::time::Duration;

use clap::Parser;
use coordinator::admin::{self, AdminServer, BindError, Status};
use coordinator::cli::{Cli, Command, ExitCode};
use coordinator::config::{self, DataSource, RunConfig, Sources};
use coordinator::core::early_stopping::Rule;
use coordinator::core::run::Precision;
use coordinator::core::schedule::{Decay, Schedule};
use coordinator::core::{Outcome, Recipe, RunError, event::StopReason};
use coordinator::driver::{Driver, Inputs};
use coordinator::launcher::{self, Gpus, LaunchError, LaunchSpec, Launcher, WorkerExit};
use coordinator::metrics::{Metrics, RunFacts};
use coordinator::observe::Observers;
use coordinator::progress::Progress;
use coordinator::service::TrainerService;
use coordinator::shutdown::{Signals, Stop};
use coordinator::store::{RunStore, StoreError};
use coordinator::telemetry;
use proto::v1;
use tokio::sync::{mpsc, watch};

/// How long workers may take to end once the run has.
const GRACE: Duration = Duration::from_secs(5);
/// How long the exit of a lost worker's process may take to be noticed.
const EXIT_WAIT: Duration = Duration::from_secs(2);
/// Samples of the validation set evaluated at once.
const VALIDATION_CHUNK: usize = 64;

/// A message for the user and the code that goes with it.
struct Refusal(ExitCode, String);

fn main() -> ProcessExit {
    let mut cli = Cli::parse();
    if let Some(Command::Fetch(arguments)) = cli.command.take() {
        return match arguments.run() {
            Ok(_) => ExitCode::Success.into(),
            Err(error) => refuse(Refusal(ExitCode::Fetch, error.to_string())),
        };
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(Refusal(ExitCode::Internal, error.to_string())),
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
    let loaded =
        RunConfig::load(&sources).map_err(|error| Refusal(ExitCode::Usage, error.to_string()))?;
    let config = loaded.config;
    let mut progress = Progress::new();
    telemetry::init(config.log_format, progress.log_writer())
        .map_err(|error| Refusal(ExitCode::Internal, error.to_string()))?;
    loaded.notes.iter().for_each(|note| progress.say(note));

    let (placement, note) = Gpus::detect()
        .place(
            config.device,
            if config.no_spawn { 0 } else { config.workers },
        )
        .map_err(launch_refusal)?;
    note.iter().for_each(|note| progress.say(note));
    let listener = admin::bind(config.listen, "--listen")
        .await
        .map_err(bind_refusal)?;
    let (metrics_listener, note) = admin::bind_or_free(
        config.metrics_listen,
        "--metrics-listen",
        config.metrics_listen_asked,
    )
    .await
    .map_err(bind_refusal)?;
    note.iter().for_each(|note| progress.say(note));
    let address = listener
        .local_addr()
        .map_err(|error| Refusal(ExitCode::Internal, error.to_string()))?;
    let url = launcher::local_url(address);

    let store = RunStore::create(&config.run_dir).map_err(store_refusal)?;
    let toml = config
        .to_toml()
        .map_err(|error| Refusal(ExitCode::Usage, error.to_string()))?;
    store.write_config(&toml).map_err(store_refusal)?;
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
    let metrics = Metrics::new(&registry, &facts)
        .map_err(|error| Refusal(ExitCode::Internal, error.to_string()))?;
    let mut first = Status::waiting(name, config.workers, config.epochs);
    first.run_directory = config.run_dir.display().to_string();
    first.coordinator_url.clone_from(&url);
    let (status, watched) = watch::channel(first);
    let admin = AdminServer::start(metrics_listener, registry, watched)
        .map_err(|error| Refusal(ExitCode::Internal, error.to_string()))?;
    progress.say(&format!("metrics: http://{}/metrics", admin.address()));

    let (arrivals, from_edge) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .add_service(TrainerService::new(arrivals).into_server())
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let spec = LaunchSpec {
        binary: config
            .worker_binary
            .clone()
            .unwrap_or_else(launcher::default_binary),
        coordinator_url: url.clone(),
        token: None,
        logs,
        workers: config.workers,
        placement,
        threads_per_worker: config.threads_per_worker,
    };
    let (mut workers, exits) = start_workers(&config, spec, &mut progress, &url)?;
    let (interrupts, from_signals) = mpsc::unbounded_channel();
    watch_signals(interrupts)?;

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
    let driver = Driver::new(recipe(&config), settings(&config), observers);
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
    drop(inputs);
    if let Some(workers) = &mut workers {
        workers.shutdown(GRACE).await;
    }
    observers.ended(&outcome);
    let unkept = observers.take_broken();
    admin.linger(config.metrics_linger).await;
    admin.stop().await;
    server.abort();
    match (&outcome, unkept) {
        (Ok(_), Some(error)) => Err(Refusal(ExitCode::RunDirectory, error.to_string())),
        _ => conclude(outcome, &observers),
    }
}

fn start_workers(
    config: &RunConfig,
    spec: LaunchSpec,
    progress: &mut Progress,
    url: &str,
) -> Result<(Option<Launcher>, mpsc::UnboundedReceiver<WorkerExit>), Refusal> {
    if config.no_spawn {
        progress.say(&format!(
            "waiting for {} workers: start each with `worker --coordinator {url}`",
            config.workers
        ));
        // The sender is dropped: no process of ours will ever end.
        return Ok((None, mpsc::unbounded_channel().1));
    }
    let (mut launcher, exits) = Launcher::new(spec).map_err(launch_refusal)?;
    for slot in 0..config.workers {
        launcher.spawn(slot).map_err(launch_refusal)?;
    }
    Ok((Some(launcher), exits))
}

/// The first signal asks the run to stop; a second ends the process, and the workers with it.
fn watch_signals(interrupts: mpsc::UnboundedSender<()>) -> Result<(), Refusal> {
    let mut signals =
        Signals::install().map_err(|error| Refusal(ExitCode::Internal, error.to_string()))?;
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

fn recipe(config: &RunConfig) -> Recipe {
    Recipe {
        workers: config.workers,
        global_batch: config.global_batch,
        validation_fraction: config.validation_fraction,
        validation_chunk: VALIDATION_CHUNK,
        seed: config.seed,
        schedule: Schedule {
            base: config.layer_lr.0,
            decay: match config.lr_schedule {
                config::LrSchedule::Constant => Decay::Constant,
                config::LrSchedule::Step => Decay::Step {
                    every: config.lr_step_epochs,
                    gamma: config.lr_gamma,
                },
                config::LrSchedule::Cosine => Decay::Cosine,
            },
            warmup_epochs: config.warmup_epochs,
            epochs: config.epochs,
        },
        stopping: Rule {
            patience: config.patience,
            min_delta: config.min_delta,
        },
        strict_data: config.strict_data,
        precision: match config.precision {
            config::Precision::Auto => Precision::Auto,
            config::Precision::Fp32 => Precision::Fp32,
            config::Precision::Bf16 => Precision::Bf16,
        },
    }
}

fn settings(config: &RunConfig) -> v1::Settings {
    let threads = config
        .threads_per_worker
        .or_else(|| (!config.no_spawn).then(|| launcher::share_of_processors(config.workers)));
    v1::Settings {
        data: match &config.data {
            DataSource::Demo => "demo".to_owned(),
            DataSource::Directory(path) => path.to_string_lossy().into_owned(),
        },
        limit_per_class: config.limit_per_class.unwrap_or(0) as u32,
        image_size: config.image_size,
        pretrained: config
            .pretrained
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        device: config.device.word().to_owned(),
        threads: threads.unwrap_or(0) as u32,
        seed: config.seed,
        weight_decay: config.weight_decay,
        frozen_batch_norm: config.batch_norm == config::BatchNorm::Frozen,
        collective_timeout_seconds: config.collective_timeout.as_secs() as u32,
    }
}

fn lost_slot(error: &RunError) -> Option<u32> {
    match error {
        RunError::WorkerLost { slot, .. } => *slot,
        RunError::ExitedEarly { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// The exit code of a run and, for one that failed, its message.
fn conclude(outcome: Outcome, observers: &Observers) -> Result<ExitCode, Refusal> {
    let error = match outcome {
        Ok(StopReason::Patience | StopReason::MaxEpochs) => return Ok(ExitCode::Success),
        Ok(StopReason::NonFiniteLoss) => return Ok(ExitCode::NonFiniteLoss),
        Ok(StopReason::Interrupted) => return Ok(ExitCode::Interrupted),
        Err(error) => error,
    };
    let exit = lost_slot(&error).and_then(|slot| {
        observers
            .exits()
            .iter()
            .find(|exit| exit.slot == slot as usize)
    });
    let code = match &error {
        RunError::Data(_) => ExitCode::Data,
        RunError::Weights(_) => ExitCode::Weights,
        RunError::Environment(_) => ExitCode::Environment,
        RunError::RunDirectory(_) => ExitCode::RunDirectory,
        RunError::Internal(_) => ExitCode::Internal,
        RunError::ExitedEarly { .. } if exit.is_some_and(|e| e.missing_library().is_some()) => {
            ExitCode::Environment
        }
        RunError::WorkerLost { .. } | RunError::ExitedEarly { .. } => ExitCode::WorkerLost,
    };
    let mut message = error.to_string();
    if let Some(exit) = exit {
        message.push_str(&format!("; its process {}", exit.status));
        if let Some(explanation) = exit.explanation() {
            message.push_str(&format!("\n  {explanation}"));
        }
        message.push_str(&format!("\n  the end of {}:", exit.log_path.display()));
        let tail = exit.log_tail.len().saturating_sub(5);
        for line in &exit.log_tail[tail..] {
            message.push_str(&format!("\n    {line}"));
        }
    }
    Err(Refusal(code, message))
}

fn launch_refusal(error: LaunchError) -> Refusal {
    Refusal(ExitCode::Environment, error.to_string())
}

fn bind_refusal(error: BindError) -> Refusal {
    Refusal(ExitCode::Address, error.to_string())
}

fn store_refusal(error: StoreError) -> Refusal {
    Refusal(ExitCode::RunDirectory, error.to_string())
}
