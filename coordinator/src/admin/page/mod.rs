//! The page at `/`: its files, which are part of the program, and the one image of the run
//! directory that it shows. Nothing else of that directory can be asked for.

use std::io::ErrorKind;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Shared;

/// What a browser may keep, but asks about before it uses it again.
const ASK_AGAIN: &str = "no-cache";

macro_rules! files {
    ($($path:literal: $kind:literal = $file:literal,)+) => {
        /// Path, content type and text of each file.
        pub(super) const FILES: &[(&str, &str, &str)] =
            &[$(($path, $kind, include_str!($file)),)+];
    };
}

files! {
    "/": "text/html; charset=utf-8" = "index.html",
    "/page.css": "text/css; charset=utf-8" = "page.css",
    "/page.js": "text/javascript; charset=utf-8" = "page.js",
    "/chart.js": "text/javascript; charset=utf-8" = "chart.js",
    "/words.js": "text/javascript; charset=utf-8" = "words.js",
    "/favicon.svg": "image/svg+xml" = "favicon.svg",
}

/// The routes of the page.
pub(super) fn routes() -> Router<Shared> {
    FILES
        .iter()
        .fold(Router::new(), |router, &(path, kind, text)| {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CACHE_CONTROL, ASK_AGAIN),
            ];
            router.route(path, get(move || async move { (headers, text) }))
        })
        .route("/predictions.png", get(predictions))
}

async fn predictions(State(shared): State<Shared>, asked: HeaderMap) -> Response {
    let image = match tokio::fs::read(&*shared.predictions).await {
        Ok(image) => image,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return (StatusCode::NOT_FOUND, "no predictions yet\n").into_response();
        }
        Err(error) => {
            tracing::warn!(%error, "the predictions grid cannot be read");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let tag = format!("\"{:x}\"", Sha256::digest(&image));
    let known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags.contains(&tag));
    let headers = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, ASK_AGAIN),
        (header::CONTENT_TYPE, "image/png"),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, image).into_response()
    }
}
