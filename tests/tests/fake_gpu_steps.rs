//! What a training step asks of a GPU, counted on a fake one. The figures may fall, never rise.

use std::collections::HashMap;

use integration_tests::fake_gpu::FakeGpu;
use integration_tests::{Run, SMALL, STEADY};

/// Calls of a step.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Counts {
    launches: usize,
    copies_to_device: usize,
    copies_to_host: usize,
    copies_on_device: usize,
    synchronisations: usize,
}

impl Counts {
    fn of(calls: &[&str]) -> Self {
        let count = |what: &str| calls.iter().filter(|call| call.contains(what)).count();
        Self {
            launches: count(": launch "),
            copies_to_device: count(": copy to device"),
            copies_to_host: count(": copy to host"),
            copies_on_device: count(": copy on device"),
            synchronisations: count(": synchronize "),
        }
    }

    /// The share of each of `parts` equal ones.
    fn divided(&self, parts: usize) -> Self {
        let share = |count: usize| {
            assert_eq!(count % parts, 0, "{self:?} in {parts} parts");
            count / parts
        };
        Self {
            launches: share(self.launches),
            copies_to_device: share(self.copies_to_device),
            copies_to_host: share(self.copies_to_host),
            copies_on_device: share(self.copies_on_device),
            synchronisations: share(self.synchronisations),
        }
    }
}

/// What local rank 0 asks for in most steps, and its loader for a batch.
fn steady(workers: usize) -> Option<(Counts, Counts)> {
    let gpu = FakeGpu::new()?;
    let workers = format!("--workers={workers}");
    let flags = [
        &[workers.as_str()],
        SMALL,
        STEADY,
        &[
            "--device=cuda",
            "--precision=bf16",
            "--batch-norm=per-rank",
            "--image-size=64",
        ],
    ]
    .concat();
    let mut run = Run::start_with(&flags, |command| {
        gpu.prepare(command, "0,1");
        command.env("FAKEGPU_TRACE", "1");
    });
    run.until("workers", |run| run.steps() > 0);
    let rank_0 = run.workers()[0];
    run.wait().succeeded();

    let trace = gpu.trace(rank_0);
    let (loader, training): (Vec<&str>, Vec<&str>) =
        trace.lines().partition(|call| call.starts_with("loader: "));
    // It is launched once in a step, and not in a validation.
    let steps = training.split(|call| call.contains("nll_loss_backward"));
    let mut seen = HashMap::<Counts, usize>::new();
    for step in steps.skip(1) {
        *seen.entry(Counts::of(step)).or_default() += 1;
    }
    let usual = seen.into_iter().max_by_key(|(_, times)| *times);
    let (step, times) = usual.unwrap_or_default();
    assert!(times >= 6, "{times} steps are alike");
    let batches = training
        .iter()
        .filter(|call| call.contains("nll_loss_forward"));
    Some((step, Counts::of(&loader).divided(batches.count())))
}

/// A batch is loaded ahead of its step, on another thread.
const BATCH: Counts = Counts {
    launches: 4,
    copies_to_device: 2,
    copies_to_host: 0,
    copies_on_device: 0,
    synchronisations: 2,
};

/// With two ranks there is one synchronisation more: an update must not follow a broken collective.
#[test]
fn a_step_asks_for_no_more_than_before() {
    for (workers, synchronisations) in [(1, 1), (2, 2)] {
        let Some(counted) = steady(workers) else {
            return;
        };
        let step = Counts {
            launches: 371,
            copies_to_device: 0,
            copies_to_host: 1,
            copies_on_device: 1,
            synchronisations,
        };
        assert_eq!(
            counted,
            (step, BATCH),
            "{workers} ranks; lower the figures if there are fewer"
        );
    }
}
