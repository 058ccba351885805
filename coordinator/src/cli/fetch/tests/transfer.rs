//! Connections that break, servers with their own idea of ranges, wrong content.

use super::server::{Reply, Server};
use super::*;

/// The message of a fetch that fails, which contains `expected`.
fn refused(source: &Source, directory: &Path, expected: &str) -> String {
    let line = obtain(source, directory).unwrap_err().to_string();
    assert!(line.contains(expected), "{line}");
    line
}

#[test]
fn a_cut_download_goes_on_where_it_stopped_and_a_second_fetch_does_nothing() {
    let body = content();
    let cut = |n| if n == 0 { 400_000 } else { usize::MAX };
    let served = body.clone();
    let server = Server::start(move |start, n| Reply::file(start, &served).cut_after(cut(n)));
    let home = tempfile::tempdir().unwrap();
    let source = source(Target::Weights, &server.url, sha256(&body));
    let path = obtain(&source, home.path()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert_eq!(names(&home.path().join("weights")), ["weights.pth"]);
    assert_eq!(server.starts(), [None, Some(400_000)]);

    obtain(&source, home.path()).unwrap();
    assert_eq!(
        server.starts().len(),
        2,
        "a file that is there is not requested"
    );
    std::fs::write(&path, "tampered").unwrap();
    refused(&source, home.path(), "has the wrong checksum");
    assert!(path.exists(), "what others put there is theirs");
}

#[test]
fn a_later_process_goes_on_and_starts_over_where_the_part_is_of_another_file() {
    let old = content();
    let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
    for (then, starts) in [(&old, vec![Some(1000)]), (&new, vec![Some(1000), None])] {
        let (first, second) = (old.clone(), then.clone());
        let server = Server::start(move |start, n| match n {
            0..3 => Reply::file(start, &first).cut_after(if n == 0 { 1000 } else { 0 }),
            _ => Reply::file(start, &second),
        });
        let home = tempfile::tempdir().unwrap();
        let source = source(Target::Weights, &server.url, sha256(then));
        let line = refused(&source, home.path(), "after 3 attempts");
        assert!(line.contains("after the 1000 bytes of "), "{line}");
        let path = obtain(&source, home.path()).unwrap();
        assert_eq!(&std::fs::read(path).unwrap(), then);
        assert_eq!(server.starts()[3..], starts);
    }
}

#[test]
fn a_server_that_ignores_ranges_makes_it_start_over() {
    let body = content();
    let cut = |n| if n == 0 { 5000 } else { usize::MAX };
    let served = body.clone();
    let server = Server::start(move |_, n| Reply::new("200 OK", &served).cut_after(cut(n)));
    let home = tempfile::tempdir().unwrap();
    let source = source(Target::Weights, &server.url, sha256(&body));
    let path = obtain(&source, home.path()).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body);
    assert_eq!(server.starts(), [None, Some(5000)]);
}

#[test]
fn a_complete_part_is_recognised_by_416() {
    let body = content();
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("weights");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("weights.pth.part"), &body).unwrap();
    let sum = sha256(&body);
    let server = Server::start(move |start, _| Reply::file(start, &body));
    obtain(&source(Target::Weights, &server.url, sum), home.path()).unwrap();
    assert_eq!(server.starts().len(), 1);
    assert_eq!(names(&folder), ["weights.pth"]);
}

#[test]
fn a_wrong_checksum_removes_the_download_and_names_both_sums() {
    let actual = sha256(b"other");
    let server = Server::start(move |start, _| Reply::file(start, b"other"));
    let home = tempfile::tempdir().unwrap();
    let source = source(Target::Weights, &server.url, "0123456789".into());
    let sums = format!("expected sha256 0123456789…, got {actual}");
    let line = refused(&source, home.path(), &sums);
    assert!(line.starts_with(&server.url), "{line}");
    assert!(names(&home.path().join("weights")).is_empty());
}

#[test]
fn a_404_and_broken_tls_are_final_a_503_is_not_and_silence_ends() {
    let home = tempfile::tempdir().unwrap();
    let source = |url: &str, sha256| source(Target::Weights, url, sha256);
    let zeros = || "0".repeat(64);

    let server = Server::start(|_, _| Reply::new("404 Not Found", b"gone"));
    refused(&source(&server.url, zeros()), home.path(), "404 Not Found");
    assert_eq!(server.starts().len(), 1);
    let https = server.url.replace("http:", "https:");
    refused(&source(&https, zeros()), home.path(), "cannot fetch");

    // A listener that never accepts: the kernel completes the connection, and no answer comes.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", mute.local_addr().unwrap());
    refused(&source(&url, zeros()), home.path(), "after the 0 bytes of ");

    let server = Server::start(|start, n| match n {
        0 => Reply::new("503 Service Unavailable", b""),
        _ => Reply::file(start, b"here"),
    });
    obtain(&source(&server.url, sha256(b"here")), home.path()).unwrap();
}

#[test]
fn two_fetches_do_not_write_the_same_file() {
    let server = Server::start(|start, _| Reply::file(start, b"here"));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("weights");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = crate::cli::fetch::lock(&folder).unwrap();
    assert!(lock.is_some());
    let source = source(Target::Weights, &server.url, sha256(b"here"));
    refused(&source, home.path(), "another fetch writes to");
    drop(lock);
    obtain(&source, home.path()).unwrap();
}

#[test]
fn trouble_with_the_disk_is_named_with_the_way_out() {
    let full = std::io::Error::from_raw_os_error(28);
    let line = crate::cli::fetch::unwritable(Path::new("data/x"))(full).to_string();
    assert!(
        line.starts_with("cannot write data/x: No space left"),
        "{line}"
    );
    assert!(line.contains("free some space"), "{line}");

    let server = Server::start(|start, _| Reply::file(start, b"here"));
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let source = source(Target::Weights, &server.url, sha256(b"here"));
    refused(&source, &home.path().join("file"), "cannot write");
    assert!(server.starts().is_empty());
}
