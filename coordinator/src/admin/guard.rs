//! The security headers of every response, and the requests that are refused.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The page loads its own script, style, image and stream, and nothing from other origins.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers under a strict policy. On a loopback address (`local`) a browser of this machine is
/// answered only under the machine's own name: a page from elsewhere whose name was made to lead
/// here ("DNS rebinding") learns nothing. Any name may lead to other addresses.
pub(super) async fn guard(State(local): State<bool>, request: Request, next: Next) -> Response {
    let mut response = if local && !names_this_machine(request.headers()) {
        let text = "this address answers to localhost and IP addresses only\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        // Every browser sends it.
        return true;
    };
    host.to_str().is_ok_and(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_stranger_can_own_are_this_machine() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            names_this_machine(&headers)
        };
        for own in [
            "127.0.0.1:9095",
            "127.0.0.1",
            "[::1]:80",
            "[::1]",
            "LOCALHOST:1",
        ] {
            assert!(named(own), "{own}");
        }
        for strange in [
            "evil.example",
            "evil.example:9095",
            "localhost.evil.example",
            "1.evil:9",
        ] {
            assert!(!named(strange), "{strange}");
        }
    }
}
