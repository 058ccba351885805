//! A fetch from a real server on the loopback.

mod archives;
mod server;
mod transfer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Error;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::download::Client;
use super::sources::{Checksum, Source, Target};

fn content() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..))
        .take(1_200_000)
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn source(target: Target, url: &str, sha256: String) -> Source {
    Source {
        target,
        url: url.to_owned(),
        checksum: Checksum::Sha256(sha256),
        file_name: "weights.pth",
    }
}

fn obtain(source: &Source, directory: &Path) -> Result<PathBuf, Error> {
    let silence = Some(Duration::from_millis(500));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_recv_response(silence)
        .timeout_per_read(silence)
        .proxy(None);
    let client = Client {
        agent: agent.build().new_agent(),
        attempts: 3,
        pause: Duration::from_millis(5),
    };
    super::obtain(source, directory, &client, true)
}

/// Names in `folder`, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
