//! `/status/stream`: the status again and again as server-sent events, which browsers connect to
//! anew by themselves. Every message is the whole status, so that none depends on another.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use crate::observe::status::{Snapshot, Status};

/// Messages are at least so far apart.
const PACE: Duration = Duration::from_secs(1);
/// Without news, a message says after this time that there are none.
const QUIET: Duration = Duration::from_secs(4);
/// Pages that may be open at the same time.
const MOST: usize = 64;

/// The open pages, and when they are closed.
#[derive(Debug, Clone)]
pub(super) struct Viewers {
    places: Arc<Semaphore>,
    closed: watch::Receiver<bool>,
}

impl Viewers {
    /// No page yet; all get the last status once `closed` turns true.
    pub(super) fn until(closed: watch::Receiver<bool>) -> Self {
        Self {
            places: Semaphore::new(MOST).into(),
            closed,
        }
    }

    /// Whether a page is open.
    pub(super) fn any(&self) -> bool {
        self.places.available_permits() < MOST
    }
}

/// Begins a stream.
pub(super) async fn stream(State(shared): State<Shared>) -> Response {
    let viewers = shared.viewers;
    let Ok(place) = viewers.places.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let (sender, messages) = mpsc::channel(1);
    tokio::spawn(send(shared.status, viewers.closed, sender, place));
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    (
        [(unbuffered, "no"), (header::CACHE_CONTROL, "no-store")],
        Sse::new(ReceiverStream::new(messages)),
    )
        .into_response()
}

async fn send(
    mut status: watch::Receiver<Arc<Status>>,
    mut closed: watch::Receiver<bool>,
    messages: mpsc::Sender<Result<Event, Infallible>>,
    _place: OwnedSemaphorePermit,
) {
    loop {
        let last = *closed.borrow();
        let newest = Arc::clone(&status.borrow_and_update());
        let text = serde_json::to_string(&Snapshot::of(&newest));
        let Ok(text) = text else { return };
        if messages
            .send(Ok(Event::default().data(text)))
            .await
            .is_err()
            || last
        {
            return;
        }
        let news = async {
            tokio::time::sleep(PACE).await;
            // The end of the time and of the run both mean: say it again.
            let _ = tokio::time::timeout(QUIET, status.changed()).await;
        };
        tokio::select! {
            () = news => {}
            // A dropped sender closes as well, without a last status.
            change = closed.wait_for(|closed| *closed) => if change.is_err() { return },
            () = messages.closed() => return,
        }
    }
}
