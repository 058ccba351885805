//! The HTTP side that operators see: `/metrics`, `/healthz`, `/readyz`, `/status`, and the page
//! at `/`. It reads what others publish and changes nothing. Bound before it serves, so that the
//! address is known, and a taken one reported, before a run starts.

mod guard;
mod page;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, middleware};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::observe::status::{Snapshot, Status};
use stream::Viewers;

/// How long `/metrics` stays after the end where it was read before: the usual interval of
/// Prometheus, so that each one reads the last values.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(15);
/// How long an open page may take, after the end of a run, to fetch the last image.
const PAGE_LINGER: Duration = Duration::from_secs(2);
/// How long an answer under way may take when the endpoint closes.
const CLOSING: Duration = Duration::from_secs(1);

/// The running endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    scraped: Arc<AtomicBool>,
    viewers: Viewers,
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    registry: Registry,
    status: watch::Receiver<Arc<Status>>,
    predictions: Arc<PathBuf>,
    viewers: Viewers,
    scraped: Arc<AtomicBool>,
}

impl AdminServer {
    /// Serves on a bound listener until [`AdminServer::stop`]; the page shows the image
    /// `predictions` once there is one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener does not know its address.
    pub fn start(
        listener: TcpListener,
        registry: Registry,
        status: watch::Receiver<Arc<Status>>,
        predictions: PathBuf,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let scraped = Arc::new(AtomicBool::new(false));
        let (close, mut closed) = watch::channel(false);
        let viewers = Viewers::until(closed.clone());
        let shared = Shared {
            registry,
            status,
            predictions: predictions.into(),
            viewers: viewers.clone(),
            scraped: Arc::clone(&scraped),
        };
        let router = page::routes()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route(
                "/status",
                get(|State(shared): State<Shared>| async move {
                    Json(Snapshot::of(&latest(&shared))).into_response()
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
            if let Err(error) = axum::serve(listener, router)
                .with_graceful_shutdown(until)
                .await
            {
                tracing::error!(%error, "the admin endpoint failed");
            }
        });
        Ok(Self {
            address,
            scraped,
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

    /// How long to serve on after the end of a run: as long as `asked`, otherwise
    /// [`DEFAULT_LINGER`] if `/metrics` was ever read, and a moment if a page is open. A run that
    /// is not `completed` is to be resumed, which must not wait longer than the default.
    #[must_use]
    pub fn linger(&self, asked: Option<Duration>, completed: bool) -> Duration {
        match asked {
            Some(asked) if completed => asked,
            Some(asked) => asked.min(DEFAULT_LINGER),
            None if self.scraped.load(Ordering::Relaxed) => DEFAULT_LINGER,
            None if self.viewers.any() => PAGE_LINGER,
            None => Duration::ZERO,
        }
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

async fn metrics(State(shared): State<Shared>) -> Response {
    // Of 1,000 workers it is some MB of text, which takes longer than an async task may.
    let registry = shared.registry.clone();
    let encoded = tokio::task::spawn_blocking(move || {
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .map_err(|error| error.to_string())
    });
    match encoded.await.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(text) => {
            shared.scraped.store(true, Ordering::Relaxed);
            ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The newest snapshot. Only the reference is taken under the lock: whatever a reader makes of it
/// blocks no other.
fn latest(shared: &Shared) -> Arc<Status> {
    Arc::clone(&shared.status.borrow())
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match &latest(&shared).waiting_for {
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
