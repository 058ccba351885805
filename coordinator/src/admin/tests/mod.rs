//! The endpoint over a real socket.

use crate::net::bind::{BindError, bind, bind_or_free};
use std::time::Instant;

use prometheus::IntCounter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

mod page;

const ANY: &str = "127.0.0.1:0";

async fn start() -> (AdminServer, watch::Sender<Arc<Status>>, IntCounter) {
    start_with(PathBuf::from("/nowhere/predictions.png")).await
}

async fn start_with(predictions: PathBuf) -> (AdminServer, watch::Sender<Arc<Status>>, IntCounter) {
    let registry = Registry::new();
    let counter = IntCounter::new("finetune_test_total", "A test.").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    let (publish, status) = watch::channel(Arc::new(Status::waiting("one".to_owned(), 2, 15)));
    let listener = bind(ANY.parse().unwrap(), "--metrics-listen")
        .await
        .unwrap();
    (
        AdminServer::start(listener, registry, status, predictions).unwrap(),
        publish,
        counter,
    )
}

async fn get_page(address: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
    ask(address, &request).await
}

/// The head of the answer.
async fn head_of(server: &AdminServer, path: &str) -> String {
    get_page(server.address(), path).await.0
}

/// Head and body of the answer to a request that lacks only its end.
async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn pages_show_what_was_published() {
    let (server, publish, counter) = start().await;
    counter.inc_by(7);
    let (head, body) = get_page(server.address(), "/metrics").await;
    assert!(
        head.contains("200 OK") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(body.contains("finetune_test_total 7"), "{body}");
    assert_eq!(get_page(server.address(), "/healthz").await.1, "ok\n");

    let (head, body) = get_page(server.address(), "/readyz").await;
    assert!(
        head.contains("503") && body.contains("waiting for 2 more workers"),
        "{head}{body}"
    );
    publish.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.waiting_for = None;
        status.epoch = 3;
    });
    assert!(head_of(&server, "/readyz").await.contains("200 OK"));
    let (_, body) = get_page(server.address(), "/status").await;
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&status["epoch"], &status["workers_expected"]),
        (&3.into(), &2.into())
    );
    assert!(head_of(&server, "/nothing").await.contains("404"));
    let address = server.address();
    server.stop().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "still open after stop"
    );
}

#[tokio::test]
async fn it_lingers_as_long_as_asked_or_where_it_was_read() {
    let (server, _publish, _) = start().await;
    assert_eq!(server.linger(None, true), Duration::ZERO);
    get_page(server.address(), "/status").await;
    assert_eq!(
        server.linger(None, true),
        Duration::ZERO,
        "only /metrics counts"
    );
    get_page(server.address(), "/metrics").await;
    assert_eq!(server.linger(None, true), DEFAULT_LINGER);
    let asked = Duration::from_secs(3);
    assert_eq!(server.linger(Some(asked), true), asked);
}

#[tokio::test]
async fn it_lingers_long_only_after_a_completed_run() {
    let (server, _publish, _) = start().await;
    let year = Duration::from_secs(31_536_000);
    assert_eq!(server.linger(Some(year), true), year);
    assert_eq!(server.linger(Some(year), false), DEFAULT_LINGER);
    let short = Duration::from_secs(3);
    assert_eq!(server.linger(Some(short), false), short);
}

#[tokio::test]
async fn a_taken_address_names_its_flag_and_the_way_out() {
    let holder = bind(ANY.parse().unwrap(), "--listen").await.unwrap();
    let address = holder.local_addr().unwrap();
    let refused = bind_or_free(address, "--metrics-listen", true)
        .await
        .unwrap_err()
        .to_string();
    for expected in [&*address.to_string(), "--metrics-listen", "port 0"] {
        assert!(
            refused.contains(expected),
            "{expected} is missing in {refused}"
        );
    }
    let (other, note) = bind_or_free(address, "--metrics-listen", false)
        .await
        .unwrap();
    assert_ne!(other.local_addr().unwrap(), address);
    assert!(note.unwrap().contains("using a free port instead"));

    let foreign = bind("192.0.2.1:80".parse().unwrap(), "--listen")
        .await
        .unwrap_err();
    assert!(matches!(foreign, BindError::Refused { .. }), "{foreign}");
}
