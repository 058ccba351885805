//! The rendezvous: free ports, and clear errors when a rank is missing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use c10d::{Backend, Error, GroupOptions, ProcessGroup, Store};

use crate::ranks::{HOST, PATIENCE, options};

#[test]
fn each_store_gets_a_port_of_its_own() {
    let (_first, first) = Store::serve(HOST).unwrap();
    let (_second, second) = Store::serve("localhost").unwrap();
    assert!(first != 0 && second != 0 && first != second);
    Store::connect(HOST, first, PATIENCE).unwrap();
}

#[test]
fn a_store_listens_only_where_it_was_told_to() {
    let (_store, port) = Store::serve("127.0.0.2").unwrap();
    // A third address, which only a listener on all of them would occupy.
    TcpListener::bind(("127.0.0.3", port)).unwrap();
    assert!(TcpListener::bind(("127.0.0.2", port)).is_err());
}

#[test]
fn serving_on_a_foreign_address_names_it() {
    // TEST-NET-1 of RFC 5737: no machine has it.
    let error = Store::serve("192.0.2.1").unwrap_err();
    assert!(matches!(error, Error::Serve { .. }) && error.to_string().contains("192.0.2.1"));
}

#[test]
fn connecting_to_nothing_times_out_and_says_where() {
    // Bound and closed again, so nothing listens there.
    let port = TcpListener::bind((HOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let began = Instant::now();
    let error = Store::connect(HOST, port, Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&format!("{HOST}:{port}")),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "took {:?}",
        began.elapsed()
    );
}

#[test]
fn a_missing_rank_is_waited_for_no_longer_than_allowed() {
    let (store, _) = Store::serve(HOST).unwrap();
    let impatient = GroupOptions {
        connect_timeout: Duration::from_millis(300),
        ..options()
    };
    let began = Instant::now();
    let error = ProcessGroup::new(&store, "lonely", 0, 2, &impatient).unwrap_err();
    assert!(
        matches!(error, Error::RendezvousTimedOut { world_size: 2, .. }),
        "{error:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "took {:?}",
        began.elapsed()
    );
}

#[test]
fn interrupting_the_store_ends_the_wait_for_a_missing_rank() {
    let (store, _) = Store::serve(HOST).unwrap();
    let other = store.clone();
    let waiting = std::thread::spawn(move || {
        ProcessGroup::new(&other, "lonely", 0, 2, &options()).map(|_| Instant::now())
    });
    std::thread::sleep(Duration::from_millis(200));
    let interrupted = Instant::now();
    store.interrupt();
    let error = waiting.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }), "{error:?}");
    assert!(interrupted.elapsed() < Duration::from_secs(2));
}

#[test]
fn impossible_ranks_and_hosts_are_refused() {
    let (store, _) = Store::serve(HOST).unwrap();
    let join = |rank, world, host: &str| {
        let options = GroupOptions {
            backend: Backend::Gloo {
                host: Some(host.to_owned()),
            },
            ..options()
        };
        ProcessGroup::new(&store, "refused", rank, world, &options).unwrap_err()
    };
    assert!(matches!(
        join(2, 2, HOST),
        Error::NoSuchRank {
            rank: 2,
            world_size: 2
        }
    ));
    assert!(matches!(join(0, u32::MAX, HOST), Error::NoSuchRank { .. }));
    assert!(matches!(join(0, 1, "192.0.2.1"), Error::Failed { .. }));
    assert!(matches!(
        join(0, 1, "a\0b"),
        Error::NulByte { name: "host", .. }
    ));
}
