//! The HTTP side that operators see: `/metrics`, `/healthz`, `/readyz`, `/status`, and the page
//! at `/`. It reads what others publish and changes nothing. Bound before it serves, so that the
//! address is known, and a taken one reported, before a run starts.

mod guard;
mod page;
mod scrapes;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, middleware};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::observe::status::{Snapshot, Status};
use scrapes::Scrapes;
use stream::Viewers;

/// How long the endpoint waits for a last scrape when nobody said how long, and someone
/// scraped before: Prometheus's customary interval.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(15);
/// How long an open page may take, after the end of a run, to fetch the last picture.
const PAGE_LINGER: Duration = Duration::from_secs(2);
/// How long an answer under way may take when the endpoint closes.
const CLOSING: Duration = Duration::from_secs(1);

/// The running endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    scrapes: Scrapes,
    viewers: Viewers,
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    status: watch::Receiver<Status>,
    predictions: Arc<PathBuf>,
    viewers: Viewers,
    scrapes: Scrapes,
}

impl AdminServer {
    /// Serves on a bound listener until [`AdminServer::stop`]; the page shows the picture
    /// `predictions` once there is one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener does not know its address.
    pub fn start(
        listener: TcpListener,
        registry: Registry,
        status: watch::Receiver<Status>,
        predictions: PathBuf,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let scrapes = Scrapes::default();
        let (close, mut closed) = watch::channel(false);
        let viewers = Viewers::until(closed.clone());
        let shared = Shared {
            registry,
            status,
            predictions: predictions.into(),
            viewers: viewers.clone(),
            scrapes: scrapes.clone(),
        };
        let router = page::routes()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route(
                "/status",
                get(|State(shared): State<Shared>| async move {
                    Json(Snapshot::of(&shared.status.borrow())).into_response()
                }),
            )
            .route("/status/stream", get(stream::stream))
            .layer(middleware::from_fn_with_state(
                address.ip().is_loopback(),
                guard::guard,
            ))
            .with_state(shared);
        let task = tokio::spawn(async move {
            let until = async move {
                // A dropped sender closes as well.
                let _ = closed.wait_for(|closed| *closed).await;
            };
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            if let Err(error) = axum::serve(listener, service)
                .with_graceful_shutdown(until)
                .await
            {
                tracing::error!(%error, "the admin endpoint failed");
            }
        });
        Ok(Self {
            address,
            scrapes,
            viewers,
            close,
            task,
        })
    }

    /// Where it listens, with the port that a request for port 0 got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often `/metrics` was read.
    #[must_use]
    pub fn scrapes(&self) -> u64 {
        self.scrapes.count()
    }

    /// Waits, after the end of a run, until everybody who reads `/metrics` has done so once more,
    /// so that the last values are not lost; at most `bound`. Without a bound it waits [`DEFAULT_LINGER`] if
    /// somebody ever scraped, and not at all otherwise. Open pages get a moment too.
    pub async fn linger(&self, bound: Option<Duration>) {
        let before = self.scrapes();
        let page = if self.viewers.any() {
            bound.unwrap_or(PAGE_LINGER).min(PAGE_LINGER)
        } else {
            Duration::ZERO
        };
        let bound = bound.unwrap_or(if before > 0 {
            DEFAULT_LINGER
        } else {
            Duration::ZERO
        });
        // Neither the end of the time nor of the server is an error here.
        let scrape = tokio::time::timeout(bound, self.scrapes.once_more());
        let _ = tokio::join!(scrape, tokio::time::sleep(page));
    }

    /// Ends answers under way and closes.
    pub async fn stop(self) {
        // The server may have failed already.
        let _ = self.close.send(true);
        let mut task = self.task;
        if tokio::time::timeout(CLOSING, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn metrics(
    State(shared): State<Shared>,
    ConnectInfo(reader): ConnectInfo<SocketAddr>,
) -> Response {
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => {
            shared.scrapes.read_by(reader.ip());
            ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match &shared.status.borrow().waiting_for {
        None => "ready\n".into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for {reason}\n"),
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests;
