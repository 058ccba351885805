//! Connections that break, servers with their own idea of ranges, wrong content.

use super::server::{Reply, Server};
use super::*;

#[test]
fn a_cut_download_goes_on_where_it_stopped_and_a_second_fetch_does_nothing() {
    let body = content();
    let cut_at = 400_000;
    let server = Server::start({
        let body = body.clone();
        move |request, n| {
            let reply = Reply::file(request, &body, ETAG);
            if n == 0 {
                reply.cut_after(cut_at)
            } else {
                reply
            }
        }
    });
    let home = tempfile::tempdir().unwrap();
    let source = source(Target::Weights, &server, sha256(&body));
    let path = obtain(&source, home.path()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert_eq!(names(&home.path().join("weights")), ["weights.pth"]);

    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(!requests[0].contains_key("range"));
    assert_eq!(requests[1]["range"], format!("bytes={cut_at}-"));
    assert_eq!(requests[1]["if-range"], ETAG);

    obtain(&source, home.path()).unwrap();
    assert_eq!(
        server.requests().len(),
        2,
        "what is there is not asked for again"
    );
    std::fs::write(&path, "tampered").unwrap();
    let error = obtain(&source, home.path()).unwrap_err();
    assert!(
        matches!(error, FetchError::PresentButDifferent { .. }),
        "{error}"
    );
}

#[test]
fn a_later_process_goes_on_unless_the_file_on_the_server_changed() {
    let (old, new) = (
        content(),
        content().iter().map(|byte| !byte).collect::<Vec<_>>(),
    );
    for changed in [false, true] {
        let (first, second) = (old.clone(), if changed { new.clone() } else { old.clone() });
        let expected = second.clone();
        let server = Server::start(move |request, n| match n {
            0..3 => Reply::file(request, &first, ETAG).cut_after(if n == 0 { 1000 } else { 0 }),
            _ => Reply::file(request, &second, if changed { "\"two\"" } else { ETAG }),
        });
        let home = tempfile::tempdir().unwrap();
        let source = source(Target::Weights, &server, sha256(&expected));
        let error = obtain(&source, home.path()).unwrap_err();
        assert!(
            matches!(
                &error,
                FetchError::GaveUp {
                    attempts: 3,
                    kept: 1000,
                    ..
                }
            ),
            "{error}"
        );
        let path = obtain(&source, home.path()).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), expected);
        assert_eq!(server.requests()[3]["range"], "bytes=1000-");
    }
}

#[test]
fn a_server_that_ignores_ranges_makes_it_start_over() {
    let body = content();
    let server = Server::start({
        let body = body.clone();
        move |_, n| {
            let reply = Reply::new("200 OK", &body).header("last-modified", "yesterday");
            if n == 0 { reply.cut_after(5000) } else { reply }
        }
    });
    let home = tempfile::tempdir().unwrap();
    let path = obtain(
        &source(Target::Weights, &server, sha256(&body)),
        home.path(),
    )
    .unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body);
    assert_eq!(server.requests()[1]["if-range"], "yesterday");
}

#[test]
fn a_complete_part_is_recognised_by_416() {
    let body = content();
    let server = Server::start({
        let body = body.clone();
        move |request, _| Reply::file(request, &body, ETAG)
    });
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("weights");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("weights.pth.part"), &body).unwrap();
    let origin = serde_json::json!({"url": server.url(), "etag": ETAG, "total": body.len()});
    std::fs::write(folder.join("weights.pth.part.json"), origin.to_string()).unwrap();
    obtain(
        &source(Target::Weights, &server, sha256(&body)),
        home.path(),
    )
    .unwrap();
    assert_eq!(server.requests().len(), 1);
    assert_eq!(names(&folder), ["weights.pth"]);
}

#[test]
fn a_wrong_checksum_removes_the_download_and_names_both_sums() {
    let body = content();
    let actual = sha256(&body);
    let server = Server::start(move |request, _| Reply::file(request, &body, ETAG));
    let home = tempfile::tempdir().unwrap();
    let error = obtain(
        &source(Target::Weights, &server, "0123456789".into()),
        home.path(),
    )
    .unwrap_err();
    let line = error.to_string();
    assert!(matches!(error, FetchError::WrongChecksum { .. }), "{line}");
    assert!(
        line.contains("0123456789") && line.contains(&actual),
        "{line}"
    );
    assert!(names(&home.path().join("weights")).is_empty());
}

#[test]
fn a_404_and_broken_tls_are_final_a_503_is_not_and_silence_ends() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Reply::new("404 Not Found", b"gone"));
    let error = obtain(
        &source(Target::Weights, &server, "0".repeat(64)),
        home.path(),
    )
    .unwrap_err();
    assert!(
        matches!(&error, FetchError::Status { status, .. } if status == "404 Not Found"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 1);

    let server = Server::start(|request, n| match n {
        0 => Reply::new("503 Service Unavailable", b""),
        _ => Reply::file(request, b"here", ETAG),
    });
    obtain(
        &source(Target::Weights, &server, sha256(b"here")),
        home.path(),
    )
    .unwrap();

    let mut tls = source(Target::Weights, &server, sha256(b"else"));
    tls.url = tls.url.replace("http:", "https:");
    tls.file_name = "other.pth";
    let error = obtain(&tls, home.path()).unwrap_err();
    assert!(matches!(error, FetchError::Address { .. }), "{error}");

    // A listener that never accepts: the kernel completes the connection, nobody answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = source(Target::Weights, &server, sha256(b"else"));
    source.url = format!("http://{}/file", mute.local_addr().unwrap());
    source.file_name = "other.pth";
    let error = obtain(&source, home.path()).unwrap_err();
    assert!(
        matches!(error, FetchError::GaveUp { kept: 0, .. }),
        "{error}"
    );
}

#[test]
fn two_fetches_do_not_write_the_same_file() {
    let server = Server::start(|request, _| Reply::file(request, b"here", ETAG));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("weights");
    std::fs::create_dir_all(&folder).unwrap();
    let retained = crate::cli::fetch::lock(&folder).unwrap();
    assert!(retained.is_some());
    let source = source(Target::Weights, &server, sha256(b"here"));
    let error = obtain(&source, home.path()).unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error}");
    drop(retained);
    obtain(&source, home.path()).unwrap();
}

#[test]
fn trouble_with_the_disk_is_named() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = FetchError::storage(Path::new("data/x"), full);
    assert!(
        error
            .to_string()
            .starts_with("no space left to write data/x"),
        "{error}"
    );

    let server = Server::start(|request, _| Reply::file(request, b"here", ETAG));
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let source = source(Target::Weights, &server, sha256(b"here"));
    let error = obtain(&source, &home.path().join("file")).unwrap_err();
    assert!(matches!(error, FetchError::Storage { .. }), "{error}");
    assert!(server.requests().is_empty());
}
