//! Puts a run together: takes what it needs of the machine, then starts the gRPC server, the
//! HTTP endpoint, the launcher and the driver. Nothing here decides anything about training.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::trace::{Spans, TraceId};
use coordinator_core::words::count;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::admin::AdminServer;
use crate::app::exit::Failure;
use crate::app::open::{OpenedRun, Request};
use crate::app::run::{Running, Services};
use crate::app::signals::watch_signals;
use crate::config::RunConfig;
use crate::launcher::{self, Gpus, LaunchSpec, Launcher, LauncherEvent, Placement};
use crate::net::bind;
use crate::net::url::local_url;
use crate::observe::Observers;
use crate::observe::console::Progress;
use crate::observe::metrics::{Metrics, RunFacts};
use crate::observe::status::Status;
use crate::rpc::access::{Access, Incoming};
use crate::rpc::convert::Wire;
use crate::rpc::dataset::Dataset;
use crate::rpc::limits;
use crate::rpc::metrics_layer::RpcMetrics;
use crate::rpc::service::TrainerService;
use crate::rpc::transport::uds::WorkerSocket;
use crate::runtime::{Driver, Inputs, channels};
use crate::store::{self, Recorder};

/// What a run takes of the machine before its directory exists.
pub(super) struct Reserved {
    /// None where others start the workers.
    worker_program: Option<PathBuf>,
    placement: Placement,
    access: Access,
    /// A resumed run listens where its directory says, which is not open yet.
    listener: Option<TcpListener>,
    metrics: TcpListener,
}

impl Reserved {
    /// Finds the worker program, assigns devices, reads credentials and binds addresses; says what
    /// the user should know.
    ///
    /// # Errors
    /// A program, a device, a credential or an address that the settings ask for cannot be had.
    pub(super) async fn take(request: &Request, progress: &mut Progress) -> Result<Self, Failure> {
        let config = &request.config;
        let local_workers = if config.no_spawn { 0 } else { config.workers };
        let worker_program = match config.no_spawn {
            true => None,
            false => Some(launcher::worker_program(config.worker_binary.as_deref())?),
        };
        let (placement, note) = Gpus::detect().place(config.device, local_workers)?;
        note.iter().for_each(|note| progress.say(note));
        limits::raise_descriptors();
        let access = Access::new(config)?;
        access.notes().iter().for_each(|note| progress.say(note));
        let listener = match request.resume {
            true => None,
            false => Some(bind::bind(config.listen, "--listen").await?),
        };
        let (metrics, note) = bind::bind_or_free(
            config.metrics_listen,
            "--metrics-listen",
            config.metrics_listen_asked,
        )
        .await?;
        note.iter().for_each(|note| progress.say(note));
        Ok(Self {
            worker_program,
            placement,
            access,
            listener,
            metrics,
        })
    }
}

/// The gRPC server of a run. Dropping `close` lets it end the sessions that are left.
pub(super) struct Server {
    /// The task that serves.
    pub(super) task: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Keeps it serving.
    pub(super) close: oneshot::Sender<()>,
}

/// Starts everything but the driver, which is ready to be driven.
///
/// # Errors
/// An address cannot be bound, or a file of the run directory cannot be written.
pub(super) async fn build(
    request: &Request,
    reserved: Reserved,
    opened: OpenedRun,
    trace: TraceId,
    mut progress: Progress,
) -> Result<Running, Failure> {
    let config = &request.config;
    let Reserved {
        worker_program,
        placement,
        access,
        listener,
        metrics: metrics_listener,
    } = reserved;
    let listener = match listener {
        Some(listener) => listener,
        None => rebind(request, &opened, &mut progress).await?,
    };
    let address = listener.local_addr().map_err(Failure::internal)?;
    opened.store.write_address(address)?;

    let (registry, metrics) = metrics(config)?;
    let first = first_status(config, local_url(access.scheme(), address));
    let (published, status) = watch::channel(Arc::new(first.clone()));

    let (mailbox, inbox) = channels::mailbox();
    let wire = Wire::new(config, opened.run_id.clone());
    let dataset = Dataset::new(config, metrics.clone());
    let service = TrainerService::new(mailbox, wire, dataset, &config.run_dir);
    let (socket, unix) = worker_socket(config)?.unzip();
    let server = serve(service, access.accept(listener, unix), &access, &metrics);

    let spec = worker_program.map(|program| {
        let socket = socket.as_ref();
        launch_spec(config, &opened, program, placement, socket, address)
    });
    let (launcher, processes) = prepare_launcher(config, spec, &mut progress, address, &access);
    let (interrupts, from_signals) = mpsc::unbounded_channel();
    watch_signals(interrupts, launcher.as_ref().map(Launcher::children))?;

    let (mut observers, traces) = observe(
        config,
        &opened,
        trace,
        metrics.clone(),
        (first, published),
        progress,
    )?;
    let admin = start_admin(config, metrics_listener, registry, status, &mut observers)?;
    let (recorder, recorded) = Recorder::start(opened.store, opened.journal, opened.checkpoints)
        .map_err(Failure::internal)?;
    let image_bytes = u64::from(config.image_size).pow(2) * 3;
    let mut driver = Driver::new(
        opened.run,
        launcher,
        recorder,
        observers,
        image_bytes,
        metrics,
    );
    let corrupt = opened.history.map(|history| history.corrupt);
    driver.report_corrupt(&corrupt.unwrap_or_default());
    Ok(Running {
        driver,
        inputs: Inputs {
            inbox,
            processes,
            recorded,
            interrupts: from_signals,
        },
        services: Services {
            server,
            socket,
            admin,
            traces,
            metrics_linger: config.metrics_linger,
        },
    })
}

/// The HTTP endpoint. A page that reconnects finds everything that is known.
fn start_admin(
    config: &RunConfig,
    listener: TcpListener,
    registry: prometheus::Registry,
    status: watch::Receiver<Arc<Status>>,
    observers: &mut Observers,
) -> Result<AdminServer, Failure> {
    observers.tick(0, 0);
    let predictions = config.run_dir.join(store::PREDICTIONS);
    let admin =
        AdminServer::start(listener, registry, status, predictions).map_err(Failure::internal)?;
    observers.say(&format!("metrics: http://{}/metrics", admin.address()));
    observers.say(&format!("page:    http://{}/", admin.address()));
    Ok(admin)
}

/// The observers, who know what a former coordinator left; and the sender of the last spans.
fn observe(
    config: &RunConfig,
    opened: &OpenedRun,
    trace: TraceId,
    metrics: Metrics,
    status: (Status, watch::Sender<Arc<Status>>),
    progress: Progress,
) -> Result<(Observers, Option<Spans>), Failure> {
    let mut observers = Observers::new(
        config.run_dir.clone(),
        metrics,
        status,
        progress,
        config.epochs,
        config.patience,
    );
    let endpoint = config.otlp_endpoint.as_deref();
    let traces = endpoint.and_then(|endpoint| observers.begin_traces(endpoint, trace));
    observers.remember_events(opened.journal.lines()?);
    if let Some(history) = &opened.history {
        observers.remember(history, opened.run.standing());
    }
    Ok((observers, traces))
}

/// Listens where the workers of the former coordinator look for it, if that can be had.
async fn rebind(
    request: &Request,
    opened: &OpenedRun,
    progress: &mut Progress,
) -> Result<TcpListener, Failure> {
    let listen = request.config.listen;
    let former = opened.history.as_ref().and_then(|history| history.address);
    let Some(former) = former.filter(|_| !request.listen_asked) else {
        return Ok(bind::bind(listen, "--listen").await?);
    };
    match bind::bind(former, "--listen").await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            progress.say(&format!(
                "{error}; workers of the former coordinator will not find this one"
            ));
            Ok(bind::bind(listen, "--listen").await?)
        }
    }
}

fn run_name(config: &RunConfig) -> String {
    let name = config.run_dir.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn metrics(config: &RunConfig) -> Result<(prometheus::Registry, Metrics), Failure> {
    let registry = prometheus::Registry::new();
    let facts = RunFacts {
        run: run_name(config),
        dataset: config.data.describe(),
        workers: config.max_workers,
        epochs: config.epochs,
        patience: config.patience,
    };
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry
        .register(Box::new(process))
        .map_err(Failure::internal)?;
    let metrics = Metrics::new(&registry, &facts).map_err(Failure::internal)?;
    Ok((registry, metrics))
}

fn first_status(config: &RunConfig, url: String) -> Status {
    let mut status = Status::waiting(run_name(config), config.workers, config.epochs);
    status.run_directory = config.run_dir.display().to_string();
    status.coordinator_url = url;
    status
}

fn serve(
    service: TrainerService,
    incoming: Incoming,
    access: &Access,
    metrics: &Metrics,
) -> Server {
    let (close, closing) = oneshot::channel::<()>();
    let serving = limits::server()
        .layer(RpcMetrics::new(metrics.clone()))
        .layer(access.auth())
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(incoming, async {
            // Dropping the other end means the same.
            let _ = closing.await;
        });
    Server {
        task: tokio::spawn(serving),
        close,
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

fn launch_spec(
    config: &RunConfig,
    opened: &OpenedRun,
    binary: PathBuf,
    placement: Placement,
    socket: Option<&WorkerSocket>,
    address: SocketAddr,
) -> LaunchSpec {
    LaunchSpec {
        binary,
        coordinator_url: socket
            .map(|socket| socket.url().to_owned())
            .unwrap_or_default(),
        advertise: launcher::advertised(address),
        logs: opened.store.root().join(store::LOGS),
        placement,
        log_format: config.log_format,
    }
}

type Launching = (Option<Launcher>, mpsc::UnboundedReceiver<LauncherEvent>);

fn prepare_launcher(
    config: &RunConfig,
    spec: Option<LaunchSpec>,
    progress: &mut Progress,
    address: SocketAddr,
    access: &Access,
) -> Launching {
    if let Some(spec) = spec {
        let (launcher, processes) = Launcher::new(spec);
        return (Some(launcher), processes);
    }
    progress.say(&format!(
        "waiting for {}{}",
        count(config.workers, "worker"),
        ways_in(access.scheme(), address, access.worker_flags())
    ));
    // The sender is dropped: this coordinator starts no process.
    (None, mpsc::unbounded_channel().1)
}

/// How workers come to a coordinator that starts none. Whether one of another machine can reach it,
/// and under which name, only the user knows; an orchestrator starts workers by itself.
fn ways_in(scheme: &str, address: SocketAddr, flags: &str) -> String {
    match address.ip().is_unspecified() {
        true => format!(
            " on port {port} of all addresses; one started by hand needs `worker --coordinator \
             {scheme}://ADDRESS:{port}{flags}`",
            port = address.port()
        ),
        false => format!(
            ": start each with `worker --coordinator {}{flags}`",
            local_url(scheme, address)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_other_machines_are_not_sent_to_loopback() {
        let said =
            |listening: &str| ways_in("http", listening.parse().unwrap(), " --token-file FILE");
        let alone =
            ": start each with `worker --coordinator http://127.0.0.1:70 --token-file FILE`";
        assert_eq!(said("127.0.0.1:70"), alone);
        assert_eq!(said("10.0.0.1:70"), alone.replace("127.0.0.1", "10.0.0.1"));
        for all in ["0.0.0.0:70", "[::]:70"] {
            assert!(
                said(all).starts_with(" on port 70 of all addresses; "),
                "{all}"
            );
            assert!(
                said(all).contains("http://ADDRESS:70 --token-file FILE"),
                "{all}"
            );
        }
    }
}
