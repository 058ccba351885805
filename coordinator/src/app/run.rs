//! One run, from its settings to its exit code.

use std::net::SocketAddr;
use std::time::Duration;

use common::logging;
use common::trace::TraceId;
use coordinator_core::event::RunError;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::AdminServer;
use crate::app::exit::{Failure, exit_status};
use crate::app::open::{self as opening, OpenedRun};
use crate::app::signals::{Signals, Stop};
use crate::app::spec;
use crate::cli::args::{Cli, ExitCode};
use crate::config::{LogFormat, RunConfig, Sources};
use crate::launcher::{self, Children, Gpus, LaunchSpec, Launcher, LauncherEvent};
use crate::net::bind;
use crate::net::url::local_url;
use crate::observe::Observers;
use crate::observe::console::Progress;
use crate::observe::metrics::{Metrics, RunFacts};
use crate::observe::status::Status;
use crate::rpc::access::Access;
use crate::rpc::dataset::Dataset;
use crate::rpc::limits;
use crate::rpc::metrics_layer::RpcMetrics;
use crate::rpc::service::TrainerService;
use crate::rpc::transport::uds::WorkerSocket;
use crate::runtime::driver::{Driver, Inputs};
use crate::runtime::keeper::CheckpointWriter;
use crate::store;

/// How long workers may take to end once the run has.
const GRACE: Duration = Duration::from_secs(5);
/// How long the exit of a lost worker's process may take to be noticed.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// Runs, or resumes, what `cli` asks for.
///
/// # Errors
/// The message and the exit code of a run that did not succeed.
pub async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let mut settings = cli.settings;
    let resume = match cli.resume {
        None if cli.resume_if_exists => {
            let asked = Sources::of_process(cli.config.clone(), settings.clone());
            let directory = RunConfig::load(&asked)?.config.run_dir;
            if let Some(reason) = opening::ended(&directory)? {
                eprintln!("the run in {} has ended ({reason})", directory.display());
                return Ok(ExitCode::Success);
            }
            directory.join(store::CONFIG).is_file().then_some(directory)
        }
        given => given,
    };
    let resuming = resume.is_some();
    let file = match resume {
        Some(directory) => {
            let file = directory.join(store::CONFIG);
            settings.run_dir = Some(directory);
            Some(file)
        }
        None => cli.config,
    };
    let listen_asked = settings.listen.is_some();
    let loaded = RunConfig::load(&Sources::of_process(file.clone(), settings))?;
    let config = loaded.config;
    if resuming {
        let saved = Sources {
            file,
            ..Sources::default()
        };
        config.check_continues(&RunConfig::load(&saved)?.config)?;
    }
    let mut progress = Progress::new();
    let logs = logging::init(
        config.log_format == LogFormat::Json,
        "warn",
        progress.log_writer(),
    )
    .map_err(Failure::internal)?;
    if !resuming {
        loaded.notes.iter().for_each(|note| progress.say(note));
    }

    let (placement, note) = Gpus::detect().place(
        config.device,
        if config.no_spawn { 0 } else { config.workers },
    )?;
    note.iter().for_each(|note| progress.say(note));
    limits::raise_descriptors();
    let access = Access::new(&config)?;
    access.notes().iter().for_each(|note| progress.say(note));
    // Before the run directory, which a refused address should not leave behind; but the
    // address of a former coordinator is known only from there.
    let fresh = match resuming {
        true => None,
        false => Some(bind::bind(config.listen, "--listen").await?),
    };
    let (metrics_listener, note) = bind::bind_or_free(
        config.metrics_listen,
        "--metrics-listen",
        config.metrics_listen_asked,
    )
    .await?;
    note.iter().for_each(|note| progress.say(note));
    let opening = match resuming {
        true => opening::resume(&config)?,
        false => opening::create(&config)?,
    };
    let trace = TraceId::of_run(&opening.run_id);
    logs.set(trace);
    tracing::info!("run {}, trace {trace}", opening.run_id);
    let listener = match fresh {
        Some(listener) => listener,
        None => rebind(&config, listen_asked, &opening, &mut progress).await?,
    };
    let address = listener.local_addr().map_err(Failure::internal)?;
    opening.store.write_address(address)?;
    let url = local_url(access.scheme(), address);

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
        workers: config.max_workers,
        epochs: config.epochs,
        patience: config.patience,
    };
    let metrics = Metrics::new(&registry, &facts).map_err(Failure::internal)?;
    let dataset = Dataset::new(&config, metrics.clone());
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry
        .register(Box::new(process))
        .map_err(Failure::internal)?;
    let traffic = metrics.traffic();
    let mut first = Status::waiting(name, config.workers, config.epochs);
    first.run_directory = config.run_dir.display().to_string();
    first.coordinator_url.clone_from(&url);
    let (status, watched) = watch::channel(first);

    let (arrivals, from_edge) = mpsc::unbounded_channel();
    let (close, closing) = oneshot::channel::<()>();
    let (socket, unix) = worker_socket(&config)?.unzip();
    let incoming = access.accept(listener, unix);
    let mut server = tokio::spawn(
        limits::server()
            .layer(RpcMetrics::new(traffic.clone()))
            .layer(access.auth())
            .add_service(TrainerService::new(arrivals.clone(), dataset).into_server())
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
        coordinator_url: socket
            .as_ref()
            .map(|socket| socket.url().to_owned())
            .unwrap_or_default(),
        advertise: launcher::advertised(address),
        logs: opening.store.logs(),
        workers: config.workers,
        placement,
        threads_per_worker: config.threads_per_worker,
        log_format: config.log_format,
    };
    let (launcher, processes) = prepare_launcher(&config, spec, &mut progress, address, &access)?;
    let (interrupts, from_signals) = mpsc::unbounded_channel();
    watch_signals(interrupts, launcher.as_ref().map(Launcher::children))?;

    let mut observers = Observers::new(
        opening.store,
        opening.journal,
        metrics,
        status,
        progress,
        config.epochs,
        config.patience,
    );
    let traces = config
        .otlp_endpoint
        .as_deref()
        .and_then(|endpoint| observers.begin_traces(endpoint, trace));
    if let Some(past) = opening.past {
        observers.remember(past, opening.run.standing());
    }
    // Not earlier: a page that comes back after a while should find all that is known.
    let predictions = config.run_dir.join(store::PREDICTIONS);
    let admin = AdminServer::start(metrics_listener, registry, watched, predictions)
        .map_err(Failure::internal)?;
    observers.say(&format!("metrics: http://{}/metrics", admin.address()));
    observers.say(&format!("page:    http://{}/", admin.address()));
    let mut inputs = Inputs {
        arrivals: from_edge,
        processes,
        interrupts: from_signals,
    };
    let driver = Driver::new(
        opening.run,
        opening.run_id,
        spec::settings(&config),
        launcher,
        CheckpointWriter::new(opening.checkpoints, arrivals),
        observers,
        traffic,
    );
    let (outcome, mut workers, mut observers) = driver.drive(&mut inputs).await;
    // Whoever comes now hears that the run is over, instead of waiting for an answer.
    inputs.arrivals.close();

    if let Some(local_rank) = outcome.as_ref().err().and_then(RunError::local_rank) {
        let wait = tokio::time::timeout(EXIT_WAIT, async {
            while !observers
                .exits()
                .iter()
                .any(|exit| exit.local_rank == local_rank as usize)
            {
                match inputs.processes.recv().await {
                    Some(LauncherEvent::Exited(exit)) => observers.exited(exit),
                    Some(_) => {}
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
    if let Some(traces) = traces {
        traces.finish().await;
    }
    let unkept = observers.take_broken();
    let linger = admin.linger(config.metrics_linger);
    if linger > Duration::from_secs(2) {
        let address = admin.address();
        observers.say(&format!(
            "serving http://{address}/metrics for {} s more; Ctrl-C ends now",
            linger.as_secs()
        ));
    }
    tokio::select! {
        () = tokio::time::sleep(linger) => {}
        _ = interrupts.recv() => {}
    }
    admin.stop().await;
    // Workers that others started have to read their last message.
    drop(close);
    if tokio::time::timeout(GRACE, &mut server).await.is_err() {
        server.abort();
    }
    // Before the lock of the run directory is given back: the next coordinator has a socket there.
    drop(socket);
    match (&outcome, unkept) {
        (Ok(_), Some(error)) => Err(error.into()),
        _ => exit_status(outcome, observers.exits()),
    }
}

/// Listens where the workers of the former coordinator look for it, if that can be had.
async fn rebind(
    config: &RunConfig,
    asked: bool,
    opening: &OpenedRun,
    progress: &mut Progress,
) -> Result<TcpListener, Failure> {
    let former = opening.past.as_ref().and_then(|past| past.address);
    let address = former.filter(|_| !asked).unwrap_or(config.listen);
    match bind::bind(address, "--listen").await {
        Err(error) if former.is_some() && !asked => {
            progress.say(&format!(
                "{error}; workers that still look there will not find this run"
            ));
            Ok(bind::bind(config.listen, "--listen").await?)
        }
        bound => Ok(bound?),
    }
}

/// The socket for the workers of this machine. Where others start the workers, it is only an
/// additional way in, and a file system without sockets no obstacle.
fn worker_socket(config: &RunConfig) -> Result<Option<(WorkerSocket, UnixListener)>, Failure> {
    match WorkerSocket::bind(&config.run_dir) {
        Err(error) if config.no_spawn => {
            tracing::info!("workers cannot connect by a Unix socket: {error}");
            Ok(None)
        }
        bound => Ok(Some(bound?)),
    }
}

fn prepare_launcher(
    config: &RunConfig,
    spec: LaunchSpec,
    progress: &mut Progress,
    address: SocketAddr,
    access: &Access,
) -> Result<(Option<Launcher>, mpsc::UnboundedReceiver<LauncherEvent>), Failure> {
    if config.no_spawn {
        let (scheme, flags) = (access.scheme(), access.worker_flags());
        progress.say(&format!(
            "waiting for {} workers: start each with `worker --coordinator {}{flags}`",
            config.workers,
            local_url(scheme, address)
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
    let (launcher, processes) = Launcher::new(spec)?;
    Ok((Some(launcher), processes))
}

/// The first signal asks the run to stop; a second ends the process, and the workers with it.
fn watch_signals(
    interrupts: mpsc::UnboundedSender<()>,
    children: Option<Children>,
) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::internal)?;
    tokio::spawn(async move {
        loop {
            match signals.next().await {
                // Nobody listens any more when the run is over anyway.
                Stop::Graceful => drop(interrupts.send(())),
                Stop::Immediate => {
                    if let Some(children) = &children {
                        children.kill();
                    }
                    std::process::exit(ExitCode::Interrupted.code().into());
                }
            }
        }
    });
    Ok(())
}
