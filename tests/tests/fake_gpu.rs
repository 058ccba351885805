//! The host side of training on GPUs, on a fake one: see `fakegpu/README.md`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::fake_gpu::FakeGpu;
use integration_tests::{Ended, Run, SMALL, STEADY, kill, pause, worker};

fn start(gpu: &FakeGpu, workers: usize, arguments: &[&str]) -> Run {
    start_with(gpu, workers, arguments, |_| {})
}

fn start_with(
    gpu: &FakeGpu,
    workers: usize,
    arguments: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> Run {
    let workers = format!("--workers={workers}");
    // The last of two counts.
    let flags = [
        &[workers.as_str()],
        SMALL,
        STEADY,
        &["--device=cuda"],
        arguments,
    ]
    .concat();
    Run::start_with(&flags, |command| {
        gpu.prepare(command, "0,1");
        prepare(command);
    })
}

/// A run of two workers after some steps of its second epoch, and the processes of its ranks.
fn in_the_second_epoch(gpu: &FakeGpu, arguments: &[&str]) -> (Run, Vec<u32>) {
    let mut run = start(gpu, 2, arguments);
    run.until("the second epoch", |run| run.steps() >= 8);
    let workers = run.workers();
    (run, workers)
}

/// Checks that every process left in peace.
fn assert_quiet(ended: &Ended) {
    let said = ended.said();
    for word in ["terminate", "destroy", "SIGKILL", "SIGABRT", "exit code"] {
        assert!(!said.contains(word), "`{word}` in:\n{said}");
    }
}

/// One epoch, a stop in the second, and the rest after a resumption.
fn train_and_resume(workers: usize) {
    let Some(gpu) = FakeGpu::new() else { return };
    // Alone, an epoch takes some milliseconds.
    let epochs = if workers == 1 {
        60
    } else {
        integration_tests::STEADY_EPOCHS
    };
    let mut run = start(
        &gpu,
        workers,
        &[&format!("--epochs={epochs}"), "--patience=100"],
    );
    run.until("the second epoch", |run| run.steps() >= 8);
    run.signal(rustix::process::Signal::INT);
    let stopped = run.wait().left_no_process();
    assert_eq!(stopped.code, 130, "{}", stopped.output);
    assert_quiet(&stopped);
    let resumed = stopped.resume_with(&[], |command| gpu.prepare(command, "0,1"));
    let ended = resumed.wait().succeeded().left_no_process();
    assert_quiet(&ended);
    let group = match workers {
        1 => "group: 1 rank, computing in fp32",
        _ => "group: 2 ranks over NCCL, computing in fp32",
    };
    assert!(ended.output.contains(group), "{}", ended.output);
    assert_eq!(ended.epochs().len(), epochs);
    let refused = ended.said().contains("cannot record");
    assert!(!refused);
}

#[test]
fn one_worker_trains_and_resumes() {
    train_and_resume(1);
}

#[test]
fn two_workers_train_and_resume() {
    train_and_resume(2);
}

/// The coordinator is the first to know.
#[test]
fn a_killed_rank_is_replaced_and_the_other_keeps_its_state() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (run, workers) = in_the_second_epoch(&gpu, &[]);
    kill(workers[1]);
    recovers_with(run, workers[0], 1);
}

/// NCCL is the first to know: the coordinator takes a rank that is stopped for a slow one.
#[test]
fn a_peer_that_nccl_has_lost_ends_the_collective() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (mut run, workers) = in_the_second_epoch(&gpu, &[]);
    pause(workers[1]);
    gpu.lose_a_peer(true);
    let waited = breaks(&mut run, "NCCL lost the connection to a peer");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    gpu.lose_a_peer(false);
    kill(workers[1]);
    recovers_with(run, workers[0], 1);
}

/// The survivor must not be pinned: nothing interrupts NCCL while it sets up.
#[test]
fn a_rank_that_dies_while_nccl_sets_up_leaves_the_other_its_state() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (mut run, workers) = in_the_second_epoch(&gpu, &[]);
    gpu.hold_set_up(true);
    kill(workers[1]);
    let held = |run: &Run| run.workers().into_iter().find(|&pid| gpu.is_held(pid));
    run.until("a replacement in the set-up", |run| held(run).is_some());
    kill(held(&run).expect("just seen"));
    gpu.hold_set_up(false);
    recovers_with(run, workers[0], 2);
}

/// Else NCCL's memory would be freed while it is used. The abort comes while it starts.
#[test]
fn an_abort_waits_for_a_collective_that_starts() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (mut run, workers) = in_the_second_epoch(&gpu, &[]);
    gpu.slow_starts(true);
    for starting in [false, true] {
        run.until("the next collective", |_| {
            gpu.is_starting(workers[0]) == starting
        });
    }
    kill(workers[1]);
    run.until("the loss", |run| run.output().contains("lost rank"));
    gpu.slow_starts(false);
    recovers_with(run, workers[0], 1);
}

/// The process cannot be saved, its GPU can: it resets for some seconds.
#[test]
fn a_worker_comes_back_when_its_gpu_has_been_reset() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (mut run, workers) = in_the_second_epoch(&gpu, &[]);
    gpu.reset(true);
    gpu.break_gpu_of(workers[1]);
    run.until("a worker without its GPU", |run| {
        run.output().contains("cannot be used")
    });
    gpu.reset(false);
    run.until("a recovery", |run| run.output().contains("recovered in"));
    assert!(run.workers().contains(&workers[0]), "{}", run.output());
    let ended = run.wait().succeeded().left_no_process();
    assert!(!ended.output.contains("rolled back"), "{}", ended.output);
    assert_eq!(
        ended.output.matches("2 ranks over NCCL").count(),
        2,
        "{}",
        ended.output
    );
}

/// A peer that hangs is not lost: only the time-out ends the wait for it. The coordinator loses its
/// session after about 5 s, so this is shorter.
#[test]
fn a_collective_with_a_rank_that_hangs_ends_after_its_timeout() {
    let Some(gpu) = FakeGpu::new() else { return };
    let (mut run, workers) = in_the_second_epoch(&gpu, &["--collective-timeout=3"]);
    pause(workers[1]);
    let waited = breaks(&mut run, "an NCCL collective timed out");
    let (least, most) = (Duration::from_secs(2), Duration::from_secs(8));
    assert!(least < waited && waited < most, "{waited:?}");
    kill(workers[1]);
    recovers_with(run, workers[0], 1);
}

/// Waits until local rank 0 has left its group for this reason; how long that took.
fn breaks(run: &mut Run, reason: &str) -> Duration {
    let began = Instant::now();
    run.until(reason, |run| run.log(0).contains(reason));
    began.elapsed()
}

/// The run goes on with the process that is left, and its state.
fn recovers_with(mut run: Run, survivor: u32, lost: usize) {
    run.until("a recovery", |run| run.output().contains("recovered in"));
    assert!(run.workers().contains(&survivor), "{}", run.output());
    let ended = run.wait().succeeded().left_no_process();
    assert!(!ended.output.contains("rolled back"), "{}", ended.output);
    assert_eq!(
        ended.output.matches("lost rank ").count(),
        lost,
        "{}",
        ended.output
    );
    let log = std::fs::read_to_string(ended.path().join("logs/worker-0.log"));
    let log = log.expect("the log of the survivor");
    assert!(
        !log.contains("terminate") && !log.contains("destroy"),
        "{log}"
    );
}

/// Workers that users start take the GPU that they are told, and no two the same.
#[test]
fn workers_started_by_hand_take_different_gpus() {
    let Some(gpu) = FakeGpu::new() else { return };
    // By its index, and by its UUID.
    let (ended, successes) = by_hand(&gpu, ["1", "GPU-20000000-0000-0000-0000-000000000000"]);
    assert_ne!(ended.code, 0, "{}", ended.output);
    assert!(
        ended.output.contains("which another on"),
        "{}",
        ended.output
    );
    assert_eq!(successes, 0);
    let (ended, successes) = by_hand(&gpu, ["1", "GPU-40000000-0000-0000-0000-000000000000"]);
    let output = ended.succeeded().output;
    assert!(output.contains("2 ranks over NCCL"), "{output}");
    assert_eq!(successes, 2);
}

/// A run of two workers with these GPUs; how it ended, and how many workers ended well.
fn by_hand(gpu: &FakeGpu, chosen: [&str; 2]) -> (Ended, usize) {
    let mut run = start(gpu, 2, &["--no-spawn", "--epochs=1"]);
    run.until("an address to join", |run| run.join_address().is_some());
    let url = run.join_address().expect("just seen");
    let workers = chosen.map(|chosen| {
        let mut command = worker(&url);
        gpu.prepare(&mut command, "0,1,2,3");
        command.args(["--gpu", chosen]).stderr(Stdio::null());
        command.spawn().expect("the worker starts")
    });
    let ended = run.wait();
    let ends = workers.map(|mut worker| worker.wait().expect("a child of this process"));
    (ended, ends.iter().filter(|end| end.success()).count())
}

/// It ends the run, with advice, and does not start the same worker again.
fn assert_out_of_memory(run: Run) -> String {
    let ended = run.wait().left_no_process();
    let output = &ended.output;
    assert_ne!(ended.code, 0, "{output}");
    let advice = "out of memory: a smaller --global-batch, or more workers";
    assert!(output.contains(advice), "{output}");
    for word in ["recovered", "frame #", "unwrap"] {
        assert!(!output.contains(word), "`{word}` in:\n{output}");
    }
    ended.output
}

/// The optimizer allocates nothing: after it, the next step does.
#[test]
fn a_gpu_without_memory_is_named_in_each_phase() {
    let Some(gpu) = FakeGpu::new() else { return };
    for last in ["max_pool_forward", "nll_loss_backward", "FusedAdam"] {
        assert_out_of_memory(start_with(&gpu, 1, &[], |command| {
            command.env("FAKEGPU_OUT_OF_MEMORY_AFTER", last);
        }));
    }
}

#[test]
fn a_gpu_that_is_too_small_is_named() {
    let Some(gpu) = FakeGpu::new() else { return };
    let run = start_with(&gpu, 1, &[], |command| {
        command
            .env("FAKEGPU_MEMORY_MIB", "200")
            // Only the allocator that keeps memory says what there is.
            .env_remove("PYTORCH_NO_CUDA_MEMORY_CACHING");
    });
    let output = assert_out_of_memory(run);
    for part in ["Tried to allocate", "total capacity of 200.00 MiB"] {
        assert!(output.contains(part), "`{part}` in:\n{output}");
    }
}

/// Not a run on the CPU instead.
#[test]
fn a_driver_that_is_too_old_is_named() {
    let Some(gpu) = FakeGpu::new() else { return };
    let run = start_with(&gpu, 1, &["--device=auto"], |command| {
        command.env("FAKEGPU_DRIVER", "12040");
    });
    let ended = run.wait().left_no_process();
    assert_ne!(ended.code, 0, "{}", ended.output);
    let cause = "its driver is for CUDA 12.4, and CUDA 13 needs driver 580 or newer";
    assert!(ended.output.contains(cause), "{}", ended.output);
}
