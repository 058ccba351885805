//! One file over HTTP into one file on disk.
//!
//! Owns requests, resumption, retries and what each answer of a server means. `NAME.part` grows
//! until the server has no more, and becomes `NAME` when its checksum is right. A part that does
//! not belong to the file on the server fails that check and is removed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Error, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use ureq::http::{StatusCode, header};

use super::sources::Source;
use super::{is_of_disk, unwritable};

const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How requests are made and repeated.
pub(super) struct Client {
    pub(super) agent: ureq::Agent,
    /// Attempts in a row that may bring nothing new.
    pub(super) attempts: u32,
    /// Pause after the first failure; it doubles with each further one.
    pub(super) pause: Duration,
}

impl Default for Client {
    fn default() -> Self {
        let silence = Some(Duration::from_secs(60));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .user_agent(concat!("coordinator/", env!("CARGO_PKG_VERSION")));
        Self {
            agent: agent.build().new_agent(),
            attempts: 6,
            pause: Duration::from_secs(1),
        }
    }
}

/// How one attempt ended before the file was complete.
enum Stop {
    /// A further attempt may help.
    Retry(String),
    Fatal(Error),
}

impl Stop {
    /// The address, or the answer of its server, is wrong and stays so.
    fn refused(url: &str, reason: &str) -> Self {
        Self::Fatal(anyhow!(
            "cannot fetch {url}: {reason}; check the address, or give another with --url"
        ))
    }
}

/// Downloads `source` to `destination`, after what an earlier call left behind.
pub(super) fn download(
    source: &Source,
    destination: &Path,
    client: &Client,
    quiet: bool,
) -> Result<(), Error> {
    let mut part = destination.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let resumed = part.exists();
    transfer(source, part, client, quiet)?;
    let mut wrong = source.mismatch(part)?;
    if resumed && wrong.is_some() {
        // What an earlier call left may be of another file.
        std::fs::remove_file(part).map_err(unwritable(part))?;
        transfer(source, part, client, quiet)?;
        wrong = source.mismatch(part)?;
    }
    if let Some(wrong) = wrong {
        let _ = std::fs::remove_file(part);
        let url = &source.url;
        bail!("{url} {wrong}; fetch again, or pass --sha256 if the file is right");
    }
    File::open(part)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(part, destination))
        .map_err(unwritable(part))
}

/// Makes requests until `part` is complete.
fn transfer(source: &Source, part: &Path, client: &Client, quiet: bool) -> Result<(), Error> {
    let (mut furthest, mut failures) = (0, 0);
    loop {
        let reason = match attempt(source, part, &client.agent, quiet) {
            Ok(()) => return Ok(()),
            Err(Stop::Fatal(error)) => return Err(error),
            Err(Stop::Retry(reason)) => reason,
        };
        // Only progress beyond what was ever reached starts the count anew: a server that starts
        // over each time must not keep this loop alive.
        let length = part.metadata().map_or(0, |metadata| metadata.len());
        if length > furthest {
            (furthest, failures) = (length, 0);
        }
        failures += 1;
        if failures >= client.attempts {
            bail!(
                "gave up on {} after {failures} attempts: {reason}; check the network and run the \
                 same command again: it continues after the {length} bytes of {}",
                source.url,
                part.display()
            );
        }
        let pause = (client.pause * (1 << (failures - 1).min(5))).min(MAX_PAUSE);
        if !quiet {
            eprintln!("{reason}; next attempt in {} s", pause.as_secs());
        }
        std::thread::sleep(pause);
    }
}

/// One request. `Ok` means that the server has nothing after what `part` holds.
fn attempt(source: &Source, part: &Path, agent: &ureq::Agent, quiet: bool) -> Result<(), Stop> {
    let disk = |error| Stop::Fatal(unwritable(part)(error));
    let file = File::options().create(true).append(true).open(part);
    let mut file = file.map_err(disk)?;
    let mut start = file.metadata().map_err(disk)?.len();
    // A transfer coding would make ranges count other bytes than those on disk.
    let mut request = agent
        .get(&source.url)
        .header(header::ACCEPT_ENCODING, "identity");
    if start > 0 {
        request = request.header(header::RANGE, format!("bytes={start}-"));
    }
    let response = request
        .call()
        .map_err(|error| failed(&source.url, &error))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::OK => {
            file.set_len(0).map_err(disk)?;
            start = 0;
        }
        StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => return Ok(()),
        status
            if status.is_server_error()
                || matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                ) =>
        {
            return Err(Stop::Retry(format!("the server answers {status}")));
        }
        status => {
            let reason = format!("the server answers {status}");
            return Err(Stop::refused(&source.url, &reason));
        }
    }
    let body = response.into_body();
    let bar = bar(quiet, source.file_name, start, body.content_length());
    let copied = io::copy(&mut bar.wrap_read(body.into_reader()), &mut file);
    bar.finish_and_clear();
    match copied {
        Ok(_) => Ok(()),
        Err(error) if is_of_disk(&error) => Err(disk(error)),
        Err(error) => Err(Stop::Retry(format!("the connection failed: {error}"))),
    }
}

/// Separates errors that pass from those that stay.
fn failed(url: &str, error: &ureq::Error) -> Stop {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
    let passes = match error {
        // TLS reports a wrong certificate or protocol this way.
        Io(source) => source.kind() != io::ErrorKind::InvalidData,
        Timeout(_) | HostNotFound | ConnectionFailed | Protocol(_) => true,
        _ => false,
    };
    match passes {
        true => Stop::Retry(error.to_string()),
        false => Stop::refused(url, &error.to_string()),
    }
}

/// A bar on standard error, if that is a terminal, for `left` bytes after `start`.
fn bar(quiet: bool, name: &'static str, start: u64, left: Option<u64>) -> ProgressBar {
    let bar = match left {
        _ if quiet => ProgressBar::hidden(),
        Some(left) => ProgressBar::new(start + left),
        None => ProgressBar::no_length(),
    };
    let style = ProgressStyle::with_template(
        "{msg}  {wide_bar}  {decimal_bytes} of {decimal_total_bytes}  \
         {decimal_bytes_per_sec}  {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━╸ "));
    }
    // Bytes of an earlier attempt say nothing about the rate of this one.
    bar.with_message(name)
        .with_position(start)
        .with_elapsed(Duration::ZERO)
}
