//! Workers without data: they download the images from the coordinator, once.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};

use integration_tests::{Run, SMALL, demo_set, kill, metrics, worker};
use rustix::process::Signal;

const SENT: &str = "finetune_data_sent_bytes_total";

/// A run on `data` that waits for two workers.
fn waiting(data: &Path, arguments: &[&str]) -> (Run, String) {
    let data = format!("--data={}", data.display());
    let small = SMALL.iter().filter(|argument| **argument != "--data=demo");
    let mut all: Vec<&str> = small.copied().collect();
    all.extend(["--workers=2", "--no-spawn", "--epochs=1", data.as_str()]);
    all.extend(arguments);
    let mut run = Run::start(&all);
    run.until("an address to join", |run| run.join_address().is_some());
    let url = run.join_address().expect("just seen");
    (run, url)
}

fn without_data(url: &str, cache: &Path) -> Child {
    worker(url)
        .args(["--data=coordinator", "--cache-dir"])
        .arg(cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts")
}

fn sent(run: &Run) -> Option<f64> {
    let scraped = metrics::get(&run.metrics_address()?, "/metrics").ok()?;
    metrics::value(&scraped, SENT)
}

/// The files under a folder of classes, by their relative path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = BTreeMap::new();
    for class in entries(root).filter(|entry| entry.path().is_dir()) {
        for file in entries(&class.path()) {
            let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            let path = format!("{}/{}", name(&class), name(&file));
            found.insert(path, std::fs::read(file.path()).unwrap_or_default());
        }
    }
    found
}

/// The images in the cache of a worker.
fn cached(cache: &Path) -> BTreeMap<String, Vec<u8>> {
    let lists = std::fs::read_dir(cache.join("images"));
    let list = lists.into_iter().flatten().flatten().next();
    list.map_or_else(BTreeMap::new, |list| files(&list.path()))
}

#[test]
fn images_are_downloaded_once_and_cached_for_the_next_run() {
    let data = demo_set();
    let caches = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let mut losses = Vec::new();
    for again in [false, true] {
        let (mut run, url) = waiting(&data, &["--metrics-linger=2"]);
        let workers = caches
            .each_ref()
            .map(|cache| without_data(&url, cache.path()));
        run.until("a step", |run| run.steps() > 0);
        let bytes = sent(&run).expect("the metrics are there");
        let ended = run.wait().succeeded();
        for mut worker in workers {
            assert!(worker.wait().expect("a child of this process").success());
        }
        losses.push(ended.column("validation_loss"));
        let there = files(&data);
        let cached = caches.each_ref().map(|cache| cached(cache.path()));
        for cached in &cached {
            assert!(cached.len() >= 100, "{} images", cached.len());
            assert!(
                cached
                    .iter()
                    .all(|(path, bytes)| there.get(path) == Some(bytes))
            );
        }
        let once: usize = cached
            .iter()
            .flat_map(|cached| cached.values())
            .map(Vec::len)
            .sum();
        assert_eq!(bytes, if again { 0.0 } else { once as f64 });
    }
    assert_eq!(losses[0], losses[1]);
}

#[test]
fn a_worker_that_was_killed_downloads_only_the_rest() {
    let data = demo_set();
    // The whole demo set, some 2 MB, at 1 MiB a second.
    let arguments = [
        "--limit-per-class=200",
        "--data-bandwidth=1",
        "--rejoin-timeout=60",
    ];
    let (mut run, url) = waiting(&data, &[&arguments[..], &["--metrics-linger=2"]].concat());
    let cache = tempfile::tempdir().expect("a temporary folder");
    let other = tempfile::tempdir().expect("a temporary folder");
    let mut first = without_data(&url, cache.path());
    let second = without_data(&url, other.path());
    run.until("some of the images", |_| cached(cache.path()).len() > 100);
    kill(first.id());
    first.wait().expect("a child of this process");
    let before: usize = cached(cache.path()).values().map(Vec::len).sum();
    let again = without_data(&url, cache.path());
    run.until("a step", |run| run.steps() > 0);
    let bytes = sent(&run).expect("the metrics are there");
    run.signal(Signal::INT);
    run.wait();
    for mut worker in [again, second] {
        worker.wait().expect("a child of this process");
    }
    let total: usize = cached(cache.path()).values().map(Vec::len).sum();
    // Images that were in flight when it was killed: some read ahead, some in socket buffers.
    let twice = bytes - 2.0 * total as f64;
    assert!(
        total > 500_000 && before < total,
        "{before} of {total} bytes"
    );
    assert!(
        (0.0..0.6 * before as f64 + 300_000.0).contains(&twice),
        "{twice} bytes twice"
    );
}

#[test]
fn a_coordinator_without_a_data_folder_reports_it() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let (run, url) = waiting(&empty.path().join("absent"), &[]);
    let cache = tempfile::tempdir().expect("a temporary folder");
    let output = worker(&url)
        .args(["--data=coordinator", "--cache-dir"])
        .arg(cache.path())
        .output()
        .expect("the worker starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("no data folder at") && words.contains("absent"),
        "{words}"
    );
    drop(run);
}
