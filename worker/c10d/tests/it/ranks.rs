//! Puts ranks into threads.

use std::time::Duration;

use c10d::{Backend, GroupOptions, ProcessGroup, Store};

pub(crate) const HOST: &str = "127.0.0.1";

/// Enough for a loaded machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn options() -> GroupOptions {
    GroupOptions {
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        ..GroupOptions::new(Backend::Gloo {
            host: Some(HOST.to_owned()),
        })
    }
}

pub(crate) fn join(store: &Store, prefix: &str, rank: u32, world_size: u32) -> ProcessGroup {
    ProcessGroup::new(store, prefix, rank, world_size, &options()).unwrap()
}

/// Runs `body` as every rank of a new group and returns what they return, by rank.
pub(crate) fn run<T: Send>(world_size: u32, body: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let (server, port) = Store::serve(HOST).unwrap();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size)
            .map(|rank| {
                let body = &body;
                scope.spawn(move || {
                    let store = Store::connect(HOST, port, PATIENCE).unwrap();
                    body(join(&store, "test", rank, world_size))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    drop(server);
    results
}
