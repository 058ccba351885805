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
}

/// All that local rank 0 asks for in a run where CUDA refuses the first `refused` recordings, and all
/// that was said.
fn traced(workers: usize, further: &[&str], refused: usize) -> Option<(String, String)> {
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
        further,
    ]
    .concat();
    let mut run = Run::start_with(&flags, |command| {
        gpu.prepare(command, "0,1");
        command
            .env("FAKEGPU_TRACE", "1")
            .env("FAKEGPU_REFUSED_RECORDINGS", refused.to_string());
    });
    run.until("workers", |run| run.steps() > 0);
    let rank_0 = run.workers()[0];
    let ended = run.wait().succeeded();
    Some((gpu.trace(rank_0), ended.said()))
}

/// What local rank 0 asks for in most steps, from one batch to the next.
fn steady(workers: usize, further: &[&str]) -> Option<Counts> {
    let (trace, _) = traced(workers, further, 0)?;
    assert!(!trace.contains("loader: "), "the images are on the device");
    let calls: Vec<&str> = trace.lines().collect();
    // It normalises the images of a batch.
    let steps = calls.split_inclusive(|call| call.contains("addcmul"));
    let mut seen = HashMap::<Counts, usize>::new();
    for step in steps.skip(1) {
        *seen.entry(Counts::of(step)).or_default() += 1;
    }
    let usual = seen.into_iter().max_by_key(|(_, times)| *times);
    let (step, times) = usual.unwrap_or_default();
    assert!(times >= 6, "{times} steps are alike");
    Some(step)
}

/// Several ranks may wait once, since an update must not follow a broken collective. Whether they
/// have to depends on how quick the collective is.
fn assert_steady(workers: usize, further: &[&str], launches: usize, copies_on_device: usize) {
    let Some(counted) = steady(workers, further) else {
        return;
    };
    let step = Counts {
        launches,
        copies_to_device: 0,
        copies_to_host: 1,
        copies_on_device,
        synchronisations: counted.synchronisations.min(workers - 1),
    };
    assert_eq!(counted, step, "lower the figures if there are fewer");
}

/// A graph of the gradients and one of the update.
#[test]
fn small_steps_are_replayed() {
    assert_steady(1, &[], 5, 4);
}

#[test]
fn small_steps_of_two_ranks_are_replayed_around_their_all_reduce() {
    assert_steady(2, &[], 7, 4);
}

/// Their all-reduce overlaps the backward pass.
#[test]
fn large_steps_of_two_ranks_are_launched() {
    let large = ["--limit-per-class=80", "--global-batch=130"];
    assert_steady(2, &large, 387, 3);
}

/// An update that is replayed would read the gradients of the step that was recorded.
#[test]
fn without_a_recording_of_the_gradients_the_update_is_launched_too() {
    let Some((trace, said)) = traced(1, &[], 1) else {
        return;
    };
    assert_eq!(said.matches("cannot record").count(), 1, "{said}");
    assert!(!trace.contains("launch graph"), "a graph is replayed");
}
