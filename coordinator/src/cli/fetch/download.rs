//! One file over HTTP into one file on disk, whole or not at all.
//!
//! Owns requests, resumption, retries and what each answer of a server means. Must not know what
//! the file is for, nor how its bytes are kept until they are whole ([`super::part`]).

use super::console::Console;
use super::error::FetchError;
use super::part::{Origin, Part};
use super::sources::Source;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode, header};

/// The most that is taken from any server: several times the largest source.
const MAX_BYTES: u64 = 2 << 30;

/// How long to wait for a server and how often to try again.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Attempts in a row that may bring nothing new.
    pub(super) attempts: u32,
    /// Pause after the first failure; it doubles with each further one, up to 30 s.
    pub(super) first_pause: Duration,
    /// Time for a connection to stand, TLS included.
    pub(super) connect: Duration,
    /// Time that the server may stay silent, for the head as well as between two reads.
    pub(super) silence: Duration,
    /// Whether to go through the proxy that the environment names.
    pub(super) proxy: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_secs(1),
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            proxy: true,
        }
    }
}

/// How one attempt ended before the file was whole.
enum Stop {
    /// Asking again may help.
    Cut(String),
    /// Asking again will not.
    Fatal(FetchError),
}

impl From<FetchError> for Stop {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

/// Downloads `source` to `destination`, going on from what an earlier call left behind.
pub(super) fn download(
    source: &Source,
    destination: &Path,
    patience: &Patience,
    console: &Console,
) -> Result<(), FetchError> {
    let part = Part::beside(destination);
    let agent = agent(patience);
    let mut furthest = part.len();
    let mut failures = 0;
    console.say(&format!("fetching {}", source.url));
    while let Err(stop) = attempt(&agent, source, &part, console) {
        let reason = match stop {
            Stop::Fatal(error) => return Err(error),
            Stop::Cut(reason) => reason,
        };
        let kept = part.len();
        // Progress earns new patience, but only progress beyond what was ever reached: a server
        // that starts over each time must not keep this loop alive.
        if kept > furthest {
            (furthest, failures) = (kept, 0);
        }
        failures += 1;
        if failures >= patience.attempts {
            let (url, part) = (source.url.clone(), part.path);
            return Err(FetchError::GaveUp {
                url,
                attempts: failures,
                reason,
                kept,
                part,
            });
        }
        let pause = (patience.first_pause * (1 << (failures - 1).min(5))).min(MAX_PAUSE);
        console.say(&format!(
            "{reason}; trying again in {:.0} s",
            pause.as_secs_f64()
        ));
        std::thread::sleep(pause);
    }
    part.publish(source, destination)
}

const MAX_PAUSE: Duration = Duration::from_secs(30);

fn agent(patience: &Patience) -> ureq::Agent {
    let builder = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .user_agent(concat!("coordinator/", env!("CARGO_PKG_VERSION")));
    let builder = if patience.proxy {
        builder
    } else {
        builder.proxy(None)
    };
    builder.build().new_agent()
}

/// One request. `Ok` means that the partial file is complete.
fn attempt(
    agent: &ureq::Agent,
    source: &Source,
    part: &Part,
    console: &Console,
) -> Result<(), Stop> {
    let origin = part.origin(&source.url);
    let have = if origin.is_some() { part.len() } else { 0 };
    // A transfer coding would make ranges count other bytes than those on disk.
    let mut request = agent
        .get(&source.url)
        .header(header::ACCEPT_ENCODING, "identity");
    if let Some(origin) = origin.as_ref().filter(|_| have > 0) {
        request = request.header(header::RANGE, format!("bytes={have}-"));
        if let Some(validator) = origin.validator() {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request
        .call()
        .map_err(|error| refused(&source.url, error))?;
    let (status, headers) = (response.status(), response.headers().clone());

    let (start, total) = match status {
        StatusCode::OK => (0, number(&headers, header::CONTENT_LENGTH)),
        StatusCode::PARTIAL_CONTENT => match content_range(&headers) {
            Some((Some(start), total))
                if start == have && origin.is_some_and(|origin| origin.agrees(total)) =>
            {
                (have, total)
            }
            _ => {
                part.discard();
                return Err(Stop::Cut(
                    "the server sent another range than asked for".into(),
                ));
            }
        },
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => match content_range(&headers) {
            Some((None, Some(total))) if total == have => return Ok(()),
            _ => {
                part.discard();
                return Err(Stop::Cut("the file on the server changed".into()));
            }
        },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            return Err(Stop::Cut(format!("the server answers {status}")));
        }
        _ if status.is_server_error() => {
            return Err(Stop::Cut(format!("the server answers {status}")));
        }
        _ => {
            let (url, status) = (source.url.clone(), status.to_string());
            return Err(FetchError::Status { url, status }.into());
        }
    };
    let too_large = || FetchError::TooLarge {
        url: source.url.clone(),
        limit: MAX_BYTES,
    };
    if total.is_some_and(|total| total > MAX_BYTES) {
        return Err(too_large().into());
    }

    let mut file = part.open(start, &Origin::of(&source.url, &headers, total))?;
    let mut meter = console.bytes(source.file_name, start, total);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut length = start;
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                return Err(Stop::Cut(format!(
                    "the connection failed at byte {length}: {error}"
                )));
            }
        };
        length += n as u64;
        if length > MAX_BYTES {
            return Err(too_large().into());
        }
        file.write_all(&buffer[..n])
            .map_err(|error| FetchError::storage(&part.path, error))?;
        meter.advance(n as u64);
    }
    match total {
        Some(total) if length < total => Err(Stop::Cut(format!(
            "the connection ended at byte {length} of {total}"
        ))),
        _ => Ok(()),
    }
}

/// Sorts the client's errors into those that pass and those that stay.
fn refused(url: &str, error: ureq::Error) -> Stop {
    match error {
        // TLS reports a wrong certificate or protocol this way: the same will be wrong next time.
        ureq::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            let (url, reason) = (url.into(), source.to_string());
            Stop::Fatal(FetchError::Address { url, reason })
        }
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => Stop::Cut(error.to_string()),
        other => Stop::Fatal(FetchError::Address {
            url: url.into(),
            reason: other.to_string(),
        }),
    }
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes 5-9/10` gives (Some(5), Some(10)); `bytes */10` gives (None, Some(10)).
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range
        .split_once('-')
        .map(|(start, _)| start.parse())
        .transpose()
        .ok()?;
    Some((start, total.parse().ok()))
}
