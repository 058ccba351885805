//! The page's files, its image, its stream, and which requests are refused.

use super::*;
use crate::admin::page::FILES;
use crate::observe::status::WorkerView;
use crate::store::{JournalEntry, JournalLine};
use coordinator_core::WorkerId;
use coordinator_core::event::FinishedEpoch;

#[tokio::test]
async fn every_answer_carries_the_policy_and_a_right_type() {
    let (server, _publish, _) = start().await;
    for (path, kind, text) in FILES {
        let (head, body) = get_page(server.address(), path).await;
        assert!(head.contains("200 OK"), "{path}: {head}");
        assert!(
            head.contains(&format!("content-type: {kind}\r\n")),
            "{head}"
        );
        assert!(head.contains("cache-control: no-cache\r\n"), "{head}");
        assert_eq!(&body, text);
    }
    for path in [
        "/",
        "/status",
        "/metrics",
        "/healthz",
        "/nothing",
        "/predictions.png",
    ] {
        let (head, _) = get_page(server.address(), path).await;
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-",
        ] {
            assert!(head.contains(header), "{path} lacks {header}: {head}");
        }
    }
}

#[test]
fn the_page_asks_for_nothing_from_elsewhere_and_has_no_inline_code() {
    for (path, _, text) in FILES {
        // The name of SVG's elements is no address that is asked.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http:",
            "https:",
            "innerHTML",
            "insertAdjacent",
            "eval(",
            "style=",
            " onclick",
            "@import",
        ] {
            assert!(!text.contains(forbidden), "{path} contains {forbidden}");
        }
    }
}

#[tokio::test]
async fn nothing_can_be_changed_and_no_other_file_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), "secret").unwrap();
    let (server, _publish, _) = start_with(directory.path().join("predictions.png")).await;
    let address = server.address();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in [
            "/",
            "/status",
            "/status/stream",
            "/predictions.png",
            "/metrics",
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
            let (head, _) = ask(address, &request).await;
            assert!(head.contains("405"), "{method} {path}: {head}");
            assert!(head.contains("allow: GET,HEAD"), "{head}");
        }
    }
    let (head, body) = ask(address, &format!("HEAD / HTTP/1.1\r\nHost: {address}\r\n")).await;
    assert!(head.contains("200 OK") && body.is_empty(), "{head}{body}");
    for path in [
        "/config.toml",
        "/../config.toml",
        "/predictions.png/../config.toml",
        "/%2e%2e/config.toml",
        "/predictions.png%2f..%2fconfig.toml",
    ] {
        let (head, body) = get_page(address, path).await;
        assert!(
            head.contains("404") && !body.contains("secret"),
            "{path}: {head}"
        );
    }
}

#[tokio::test]
async fn the_image_is_there_once_it_is_drawn_and_is_sent_once() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("predictions.png");
    let (server, _publish, _) = start_with(image.clone()).await;
    let address = server.address();
    assert!(head_of(&server, "/predictions.png").await.contains("404"));

    std::fs::write(&image, "image").unwrap();
    let (head, body) = get_page(address, "/predictions.png?1").await;
    assert!(head.contains("content-type: image/png"), "{head}");
    assert_eq!(body, "image");
    let tag = head
        .lines()
        .find(|line| line.starts_with("etag: "))
        .unwrap();
    let again = format!(
        "GET /predictions.png HTTP/1.1\r\nHost: {address}\r\nIf-None-Match: {}\r\n",
        &tag["etag: ".len()..]
    );
    let (head, body) = ask(address, &again).await;
    assert!(head.contains("304") && body.is_empty(), "{head}");
    std::fs::write(&image, "another").unwrap();
    assert_eq!(ask(address, &again).await.1, "another");
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_is_turned_away() {
    let (server, publish, _) = start().await;
    publish.send_modify(|status| "private".clone_into(&mut Arc::make_mut(status).run_directory));
    let request = "GET /status HTTP/1.1\r\nHost: evil.example:9095\r\n";
    let (head, body) = ask(server.address(), request).await;
    assert!(
        head.contains("421") && !body.contains("private"),
        "{head}{body}"
    );
}

#[tokio::test]
async fn the_status_has_what_the_page_shows_and_only_the_last_events() {
    let (server, publish, _) = start().await;
    publish.send_modify(|status| {
        let status = Arc::make_mut(status);
        status.workers.push(WorkerView {
            worker: WorkerId(0),
            rank: Some(0),
            host: "<b>host</b>".to_owned(),
            device: "cpu".to_owned(),
            state: "healthy".to_owned(),
            step: 3,
            straggler_ratio: Some(1.25),
            heartbeat_timestamp: Some(12.5),
        });
        status.history.push(FinishedEpoch {
            epoch: 1,
            train_loss: f64::NAN,
            validation_loss: 0.5,
            validation_accuracy: 0.75,
            images_per_second: 100.0,
            seconds: 9.0,
            ..FinishedEpoch::default()
        });
        for worker in 0..130 {
            let entry = JournalEntry::Left {
                who: format!("worker {worker}"),
            };
            let time = "2026-11-24T13:45:07.012Z".to_owned();
            status.happened(JournalLine { time, entry });
        }
    });
    let (head, body) = get_page(server.address(), "/status").await;
    assert!(head.contains("content-type: application/json"), "{head}");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(status["now"].as_f64().unwrap() > 1e9);
    assert_eq!(status["history"][0]["train_loss"], serde_json::Value::Null);
    assert_eq!(status["history"][0]["validation_accuracy"], 0.75);
    assert_eq!(status["workers"][0]["straggler_ratio"], 1.25);
    assert_eq!(status["workers"][0]["heartbeat_timestamp"], 12.5);
    let events = status["events"].as_array().unwrap();
    assert_eq!(events.len(), 100);
    assert_eq!(events[99]["event"], "left");
    assert_eq!(events[99]["who"], "worker 129");
    assert_eq!(events[99]["time"], "2026-11-24T13:45:07.012Z");
}

#[tokio::test]
async fn an_open_page_is_told_the_end_before_the_endpoint_closes() {
    let (server, publish, _) = start().await;
    let address = server.address();
    let stream = tokio::spawn(async move { get_page(address, "/status/stream").await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.viewers.any() {
        assert!(Instant::now() < deadline, "the stream did not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    publish.send_modify(|status| "finished".clone_into(&mut Arc::make_mut(status).state));
    assert_eq!(server.linger(None, true), PAGE_LINGER);
    publish.send_modify(|status| "last word".clone_into(&mut Arc::make_mut(status).state));
    server.stop().await;
    let (head, body) = stream.await.unwrap();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let (_, last) = body.rsplit_once("data: ").unwrap();
    assert!(last.contains("\"state\":\"last word\""), "{body}");
}
