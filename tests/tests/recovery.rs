//! Whichever process is killed, the result is that of the run without faults.

use integration_tests::baseline::Baseline;
use integration_tests::{Run, STEADY, assert_exited, kill};
use rustix::process::Signal;

#[test]
fn a_killed_worker_is_replaced_and_nothing_is_lost() {
    let baseline = Baseline::of(STEADY);
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 8);
    let workers = run.workers();
    kill(workers[1]);
    run.until("a recovery", |run| run.output().contains("recovered in"));
    // The other worker: until it has sent its state to the new one, it has the only copy.
    run.until("the third epoch", |run| run.steps() >= 13);
    kill(workers[0]);
    let ended = run.wait().succeeded();
    baseline.assert_same(&ended);
    assert!(
        ended.output.matches("recovered in").count() == 2,
        "{}",
        ended.output
    );
    assert!(ended.output.contains("lost rank "), "{}", ended.output);
}

#[test]
fn without_a_replacement_the_other_worker_continues() {
    let baseline = Baseline::of(STEADY);
    let arguments = [STEADY, &["--max-restarts=0", "--rejoin-timeout=0"]].concat();
    let mut run = Run::small(2, &arguments);
    run.until("the second epoch", |run| run.steps() >= 8);
    kill(run.workers()[1]);
    let ended = run.wait().succeeded();
    baseline.assert_same(&ended);
    assert!(
        ended.output.contains("1 rank continues from"),
        "{}",
        ended.output
    );
}

#[test]
fn a_run_is_resumed_from_the_checkpoint_when_all_processes_were_killed() {
    let baseline = Baseline::of(STEADY);
    let arguments = [STEADY, &["--checkpoint-every=2"]].concat();
    let mut run = Run::small(2, &arguments);
    run.until("a checkpoint within the second epoch", |run| {
        let folder = std::fs::read_dir(run.path().join("checkpoints"));
        folder.into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("epoch-0002-step-") && !name.ends_with("-00000")
        })
    });
    let workers = run.workers();
    run.signal(Signal::KILL);
    workers.iter().for_each(|worker| kill(*worker));
    let killed = run.wait();
    assert_exited(&workers);
    // Not with another batch size: the position of the checkpoint would mean another sample.
    let refused = killed.resume(&["--global-batch=8"]).wait();
    assert_eq!(refused.code, 2, "{}", refused.output);
    assert!(
        refused.output.contains("global-batch is 16"),
        "{}",
        refused.output
    );
    // Also with another number of workers.
    let ended = refused.resume(&["--workers=3"]).wait().succeeded();
    baseline.assert_same(&ended);
}

#[test]
fn an_interrupted_run_is_resumed_where_it_stopped() {
    let baseline = Baseline::of(STEADY);
    let mut run = Run::small(2, STEADY);
    run.until("the second epoch", |run| run.steps() >= 8);
    run.signal(Signal::INT);
    let stopped = run.wait();
    assert_eq!(stopped.code, 130, "{}", stopped.output);
    let ended = stopped.resume(&[]).wait().succeeded();
    baseline.assert_same(&ended);
    let again = ended.resume(&[]).wait();
    assert_eq!(again.code, 2, "{}", again.output);
    assert!(
        again.output.contains("nothing to resume"),
        "{}",
        again.output
    );
}
