//! Connections that break, servers with their own idea of ranges, wrong content.

use super::server::{Reply, Server};
use super::*;

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
    let error = obtain(&source, home.path()).unwrap_err();
    assert!(matches!(error, FetchError::WrongChecksum { .. }), "{error}");
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
        let error = obtain(&source, home.path()).unwrap_err();
        let FetchError::GaveUp { attempts, kept, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((attempts, kept), (3, 1000));
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
    let line = obtain(&source, home.path()).unwrap_err().to_string();
    assert!(line.starts_with(&server.url), "{line}");
    assert!(
        line.contains("0123456789") && line.contains(&actual),
        "{line}"
    );
    assert!(names(&home.path().join("weights")).is_empty());
}

#[test]
fn a_404_and_broken_tls_are_final_a_503_is_not_and_silence_ends() {
    let home = tempfile::tempdir().unwrap();
    let fetch = |url: &str, sha256| obtain(&source(Target::Weights, url, sha256), home.path());

    let server = Server::start(|_, _| Reply::new("404 Not Found", b"gone"));
    let error = fetch(&server.url, "0".repeat(64)).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("404 Not Found"), "{error}");
    assert_eq!(server.starts().len(), 1);

    let error = fetch(&server.url.replace("http:", "https:"), "0".repeat(64)).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");

    // A listener that never accepts: the kernel completes the connection, and no answer comes.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", mute.local_addr().unwrap());
    let error = fetch(&url, "0".repeat(64)).unwrap_err();
    assert!(
        matches!(error, FetchError::GaveUp { kept: 0, .. }),
        "{error}"
    );

    let server = Server::start(|start, n| match n {
        0 => Reply::new("503 Service Unavailable", b""),
        _ => Reply::file(start, b"here"),
    });
    fetch(&server.url, sha256(b"here")).unwrap();
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
    let error = obtain(&source, home.path()).unwrap_err();
    assert!(matches!(error, FetchError::Busy(_)), "{error}");
    drop(lock);
    obtain(&source, home.path()).unwrap();
}

#[test]
fn trouble_with_the_disk_is_named_with_the_way_out() {
    let full = std::io::Error::from_raw_os_error(28);
    let line = FetchError::storage(Path::new("data/x"))(full).to_string();
    assert!(
        line.starts_with("cannot write data/x: No space left"),
        "{line}"
    );
    assert!(line.contains("free some space"), "{line}");

    let server = Server::start(|start, _| Reply::file(start, b"here"));
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let source = source(Target::Weights, &server.url, sha256(b"here"));
    let error = obtain(&source, &home.path().join("file")).unwrap_err();
    assert!(matches!(error, FetchError::Storage { .. }), "{error}");
    assert!(server.starts().is_empty());
}
