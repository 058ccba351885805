//! A fetch against a real server on the loopback.

mod archives;
mod server;
mod transfer;

use super::checksum::Checksum;
use super::console::Console;
use super::download::Patience;
use super::error::FetchError;
use super::extract::Limits;
use super::sources::{Source, Target};
use server::Server;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ETAG: &str = "\"one\"";

fn content() -> Vec<u8> {
    (0..300_000u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes())
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn source(target: Target, server: &Server, sha256: String) -> Source {
    let checksum = Checksum::Sha256(sha256);
    Source {
        target,
        url: server.url(),
        checksum,
        file_name: "weights.pth",
    }
}

fn obtain(source: &Source, directory: &Path) -> Result<PathBuf, FetchError> {
    let patience = Patience {
        attempts: 3,
        first_pause: Duration::from_millis(5),
        connect: Duration::from_secs(5),
        silence: Duration::from_millis(500),
        proxy: false,
    };
    super::obtain(
        source,
        directory,
        &patience,
        &Limits::default(),
        &Console::Silent,
    )
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
