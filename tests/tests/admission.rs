//! Which clients can join a run, which are refused, and that a refused client changes nothing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "admission/certificates.rs"]
mod certificates;
#[path = "admission/flood.rs"]
mod flood;
#[path = "admission/resumed.rs"]
mod resumed;
#[path = "admission/rogue_client.rs"]
mod rogue_client;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certificates::Authority;
use integration_tests::baseline::Baseline;
use integration_tests::{Ended, Run, SMALL, STEADY, assert_exited, binary, resident_kib, scratch};
use resumed::{joined_again, since_resumed};
use rogue_client::{RogueClient, until_closed};
use rustix::process::Signal;
use tonic::Code;

const ONE_EPOCH: &[&str] = &["--epochs=1"];
/// Until the test interrupts it.
const ENDLESS: &[&str] = &["--epochs=500", "--patience=500"];

/// A worker that the test started, with its stderr.
struct Worker(Child);

impl Worker {
    fn start(url: &str, arguments: &[String]) -> Self {
        let mut command = Command::new(binary("worker"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FINETUNE_")) {
            command.env_remove(name);
        }
        let child = command
            .current_dir(scratch())
            .args(["--coordinator", url])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        Self(child)
    }

    /// Its exit code and its stderr.
    fn wait(mut self) -> (i32, String) {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        let status = self.0.wait().expect("a child of this process");
        (status.code().unwrap_or(-1), said)
    }

    fn refused(self, code: i32, words: &[&str]) {
        let (found, said) = self.wait();
        assert_eq!(found, code, "{said}");
        for word in words {
            assert!(said.contains(word), "no `{word}` in: {said}");
        }
    }
}

/// A run that waits for two workers, and the URL for these.
fn waiting(arguments: &[&str]) -> (Run, String) {
    let mut run = Run::start(&[&["--workers=2", "--no-spawn"], SMALL, arguments].concat());
    run.until("an address to join", |run| {
        run.output().contains("worker --coordinator http")
    });
    let output = run.output();
    let (_, rest) = output.split_once("--coordinator ").expect("just seen");
    let url = rest.split(['`', '\n', ' ']).next().expect("a word");
    // On all addresses: the coordinator cannot know which of them a worker reaches.
    (run, url.replace("//ADDRESS:", "//127.0.0.1:"))
}

/// Checks that a run that refused clients ended as one that met none.
fn undisturbed(ended: Ended) {
    Baseline::of(ONE_EPOCH).assert_same(&ended.succeeded());
}

/// The answer to `GET /status`.
fn status(run: &Run) -> String {
    let output = run.output();
    let (_, rest) = output.split_once("metrics: http://").expect("an address");
    let host = rest.split('/').next().expect("a word");
    let mut stream = TcpStream::connect(host).expect("the endpoint answers");
    let request = format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn token_file(folder: &Path, token: &str) -> String {
    let path = folder.join("token");
    std::fs::write(&path, format!("{token}\n")).expect("a file");
    format!("--token-file={}", path.display())
}

fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Where the run listens for workers of other machines.
fn tcp_url(run: &Run) -> String {
    let answer = status(run);
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let url = status["coordinator_url"].as_str().expect("an address");
    url.to_owned()
}

/// The socket through which the run's own workers connect.
fn socket(run: &Run) -> PathBuf {
    let pid = run.workers()[0];
    let arguments = read(format!("/proc/{pid}/cmdline"));
    let path = arguments
        .split('\0')
        .find_map(|word| word.strip_prefix("unix://"));
    PathBuf::from(path.expect("the address of a socket"))
}

#[test]
fn a_run_that_starts_its_own_workers_takes_no_others() {
    let mut run = Run::small(2, ENDLESS);
    run.until("a first epoch", |run| {
        run.path().join("best.safetensors").exists()
    });
    let workers = run.workers();
    assert_eq!(workers.len(), 2, "{}", run.output());
    let socket = std::fs::metadata(socket(&run)).expect("the socket");
    let owner = std::fs::metadata(format!("/proc/{}", run.pid())).expect("the coordinator");
    assert!(socket.file_type().is_socket());
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, owner.uid()));

    let url = tcp_url(&run);
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    for token in [None, Some("0f".repeat(32))] {
        let client = RogueClient::at(&url, token.as_deref());
        let refused = client.register(|_| ());
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains("join token"), "{refused}");
        assert_eq!(client.upload(0).code(), Code::Unauthenticated);
        assert_eq!(client.download(0).code(), Code::Unauthenticated);
    }
    Worker::start(&url, &[]).refused(1, &["refused this worker", "join token"]);

    let steps = run.steps();
    run.until("an epoch after that", |run| run.steps() >= steps + 6);
    assert_eq!(run.workers(), workers, "{}", run.output());
    run.signal(Signal::INT);
    let ended = run.wait();
    assert_eq!(ended.code, 130, "{}", ended.output);
    assert!(
        ended.output.contains("refused 127.0.0.1:"),
        "{}",
        ended.output
    );
    let lost = integration_tests::journal(&ended.path());
    assert!(
        lost.iter().all(|entry| entry["event"] != "lost"),
        "{lost:?}"
    );
}

#[test]
fn only_workers_with_the_token_join_and_invalid_input_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let secret = "0123456789abcdef-of-this-test";
    let token = token_file(folder.path(), secret);
    let (run, url) = waiting(&["--epochs=1", &token]);
    let host = url.strip_prefix("http://").expect("an address").to_owned();

    for words in [
        &b"\x00\xff\x16\x03 garbage\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        until_closed(&host, words);
    }
    for shown in [None, Some("another-token-than-that-one")] {
        let client = RogueClient::at(&url, shown);
        assert_eq!(client.register(|_| ()).code(), Code::Unauthenticated);
    }
    let known = RogueClient::at(&url, Some(secret));
    let other = known.register(|message| message.protocol_version += 1);
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    let long = known.register(|message| message.host = "x".repeat(300));
    assert_eq!(long.code(), Code::InvalidArgument, "{long}");
    let huge = known.register(|message| message.host = "x".repeat(proto::MAX_MESSAGE_BYTES + 1));
    assert_eq!(huge.code(), Code::OutOfRange, "{huge}");
    assert_eq!(known.without_register().code(), Code::InvalidArgument);
    assert_eq!(known.silent().code(), Code::DeadlineExceeded);
    assert_eq!(known.upload(0).code(), Code::NotFound);
    assert_eq!(known.download(0).code(), Code::NotFound);

    // More than may be pending; they are closed within seconds, and workers try again.
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(&host)).collect();
    let workers = [0, 1].map(|_| Worker::start(&url, std::slice::from_ref(&token)));
    let ended = run.wait();
    for name in ["config.toml", "events.jsonl"] {
        let text = read(ended.path().join(name));
        assert!(!text.is_empty() && !text.contains(secret), "{text}");
    }
    assert!(!ended.output.contains(secret), "{}", ended.output);
    undisturbed(ended);
    drop(crowd);
    for worker in workers {
        let (code, said) = worker.wait();
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn certificates_let_workers_in_and_are_renewed_while_the_run_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let coordinator = ours.issue(&at("coordinator"));
    let tls: Vec<_> = coordinator.iter().map(String::as_str).collect();
    let (run, url) = waiting(&[&["--epochs=1", "--listen=0.0.0.0:0"], &tls[..]].concat());
    let port = url.rsplit_once(':').expect("a port").1.to_owned();
    assert!(url.starts_with("https://"), "{}", run.output());
    assert!(run.output().contains("--tls-cert FILE"), "{}", run.output());

    Worker::start(&url, &[]).refused(2, &["--tls-cert"]);
    let plain = url.replace("https://", "http://");
    let hasty = "--connect-timeout=1".to_owned();
    let refused = Worker::start(&plain, std::slice::from_ref(&hasty));
    refused.refused(12, &["http:// or https://"]);
    // It trusts the coordinator, but its own certificate is from another authority.
    let mut foreign = theirs.issue(&at("foreign")).to_vec();
    foreign[2] = coordinator[2].clone();
    foreign.push(hasty.clone());
    Worker::start(&url, &foreign).refused(12, &["alert", "--tls-ca"]);
    let anonymous = certificates::anonymous(&format!("127.0.0.1:{port}"), &ours);
    assert!(anonymous.contains("CertificateRequired"), "{anonymous}");
    let name = "--tls-server-name=other.example".to_owned();
    let mut misled = ours.issue(&at("misled")).to_vec();
    misled.extend([name, hasty]);
    Worker::start(&url, &misled).refused(12, &["certificate", "other.example"]);

    // An invalid certificate does not replace the valid one.
    let valid = read(at("coordinator/cert.pem"));
    std::fs::write(at("coordinator/cert.pem"), "half a certif").expect("a file");
    let first = Worker::start(&url, &ours.issue(&at("first")));
    let mut run = run;
    run.until("a worker", |run| {
        run.output().contains("is kept") && status(run).contains("1 more worker")
    });
    std::fs::write(at("coordinator/cert.pem"), valid).expect("a file");
    // A new authority; the worker that has joined stays.
    let next = Authority::new("next");
    next.issue(&at("coordinator"));
    let second = Worker::start(&url, &next.issue(&at("second")));
    undisturbed(run.wait());
    for worker in [first, second] {
        let (code, said) = worker.wait();
        assert_eq!(code, 0, "{said}");
    }
}

#[test]
fn the_runs_own_workers_need_no_certificate_and_find_the_next_coordinator() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours").issue(&folder.path().join("coordinator"));
    let tls: Vec<_> = ours.iter().map(String::as_str).collect();
    let arguments = [STEADY, &["--listen=0.0.0.0:0"], &tls[..]].concat();
    let mut run = Run::small(2, &arguments);
    run.until("a first epoch", |run| {
        run.path().join("best.safetensors").exists()
    });
    let (workers, socket) = (run.workers(), socket(&run));
    run.signal(Signal::KILL);
    let mut run = run.wait().resume(&[]);
    run.until("both workers to be back", |run| joined_again(run) == 2);
    assert_eq!(run.workers(), workers, "{}", run.output());
    let ended = run.wait().succeeded();
    let lost = since_resumed(&ended.path(), "lost");
    assert!(lost.is_empty(), "{lost:?}");
    Baseline::of(STEADY).assert_same(&ended);
    assert!(!socket.exists(), "the socket outlives the run");
    assert_exited(&workers);
}

#[test]
fn a_worker_started_by_hand_may_come_through_the_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let token = token_file(folder.path(), "0123456789abcdef-of-this-test");
    let (run, _) = waiting(&["--epochs=1", &token]);
    // Its user needs no token.
    let url = format!("unix://{}", run.path().join("workers.sock").display());
    let workers = [0, 1].map(|_| Worker::start(&url, &[]));
    undisturbed(run.wait());
    for worker in workers {
        let (code, said) = worker.wait();
        assert_eq!(code, 0, "{said}");
    }
}

#[test]
fn what_cannot_protect_a_run_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours");
    let valid = ours.issue(&folder.path().join("valid"));
    let other = ours.issue(&folder.path().join("other"));
    let short = token_file(folder.path(), "short");
    let path = |flag: &str| PathBuf::from(flag.split_once('=').expect("a flag").1);
    let missing = format!("--tls-key={}/none.pem", folder.path().display());
    for (arguments, words) in [
        (
            vec!["--listen=0.0.0.0:0"],
            vec!["--tls-cert", "--token-file", "--insecure"],
        ),
        (
            vec!["--listen=0.0.0.0:0", &valid[0], &valid[1]],
            vec!["add --tls-ca"],
        ),
        (
            vec![&valid[0], &missing, &valid[2]],
            vec!["none.pem", "--tls-key"],
        ),
        (
            vec![&valid[0], &other[1], &valid[2]],
            vec!["is not that of the certificate", "other/key.pem"],
        ),
        (vec![&short], vec!["shorter than 16 bytes", "/token"]),
        (vec!["--token-file=/no/such/token"], vec!["/no/such/token"]),
    ] {
        let started = Instant::now();
        let ended = Run::small(2, &arguments).wait();
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.output);
        for word in words {
            assert!(ended.output.contains(word), "no `{word}`: {}", ended.output);
        }
        assert!(!ended.path().exists(), "it made a run directory");
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    // With --insecure it listens, and it says when other users can read the token.
    let open = ["--listen=0.0.0.0:0", "--insecure", "--epochs=1"];
    let ended = Run::small(1, &open).wait().succeeded();
    assert!(
        ended.output.contains("every process that reaches"),
        "{}",
        ended.output
    );
    let token = token_file(folder.path(), "0123456789abcdef");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path(&token), mode).expect("a mode");
    let ended = Run::small(1, &["--epochs=1", &token]).wait().succeeded();
    assert!(ended.output.contains("chmod 600"), "{}", ended.output);
}
