//! Runs ranks as threads.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use c10d::{Backend, GroupOptions, ProcessGroup, Store};
use tch::Tensor;

pub(crate) const HOST: &str = "127.0.0.1";

/// Enough for a loaded machine; a test that passes never waits that long.
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

/// `[N, C, H, W]` with the channels innermost in memory, strides of 1×1 kernels included.
pub(crate) fn channels_last(plain: &Tensor) -> Tensor {
    let (_, c, h, w) = plain.size4().unwrap();
    let strides = [h * w * c, 1, w * c, c];
    let mut tensor = Tensor::empty_strided(plain.size(), strides, (plain.kind(), plain.device()));
    tensor.copy_(plain);
    tensor
}

/// Zeroes gradients in place, as views of a reducer's buckets need it.
pub(crate) fn zero_grads(leaves: &[Tensor]) {
    for leaf in leaves {
        let _ = leaf.grad().zero_();
    }
}

/// A thread that is about to call something that blocks.
pub(crate) struct Blocking(PathBuf);

impl Blocking {
    pub(crate) fn of_this_thread() -> Self {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        Self(PathBuf::from("/proc").join(thread).join("stat"))
    }

    /// Waits until the thread is blocked: it is asleep several times in a row. While the call is
    /// still on its way there, the thread runs or waits for a core.
    pub(crate) fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut asleep = 0;
        while asleep < 5 {
            assert!(Instant::now() < deadline, "the thread never blocks");
            std::thread::sleep(Duration::from_millis(10));
            let stat = std::fs::read_to_string(&self.0).unwrap();
            let (_, after_name) = stat.rsplit_once(") ").unwrap();
            asleep = if after_name.starts_with('S') {
                asleep + 1
            } else {
                0
            };
        }
    }
}
