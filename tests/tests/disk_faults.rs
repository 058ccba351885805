//! Disks that fill up, refuse, or give back other bytes than they were given.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use integration_tests::disk::Disk;
use integration_tests::truth::Truth;
use integration_tests::{Ended, Run, SMALL, STEADY, STEADY_STEPS, journal, kill};
use rustix::process::Signal;

fn arguments() -> Vec<&'static str> {
    [&["--workers=2"], SMALL, STEADY].concat()
}

/// The newest checkpoint, by the pointer.
fn latest(run_dir: &Path) -> PathBuf {
    let folder = run_dir.join("checkpoints");
    let name = std::fs::read_to_string(folder.join("latest")).expect("the pointer");
    folder.join(name)
}

/// The names of both checkpoints, newest first.
fn checkpoints(run_dir: &Path) -> Vec<String> {
    let folder = std::fs::read_dir(run_dir.join("checkpoints"));
    let names = folder.into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("epoch-"))
        .collect();
    names.sort();
    names.reverse();
    names
}

/// A run all of whose processes were killed when there were two checkpoints.
fn killed_with_two_checkpoints() -> Ended {
    // Often, since an epoch may be over before the last one's checkpoint is.
    let arguments = [arguments().as_slice(), &["--checkpoint-every=2"]].concat();
    let mut run = Run::start(&arguments);
    run.until("two checkpoints", |run| {
        let found = checkpoints(&run.path());
        found.len() == 2 && latest(&run.path()).ends_with(&found[0])
    });
    let workers = run.workers();
    run.signal(Signal::KILL);
    workers.into_iter().for_each(kill);
    run.wait().left_no_process()
}

/// The newest checkpoint is harmed before the run is resumed.
fn resumed_after(harm: impl FnOnce(&Path), words: &str) {
    let killed = killed_with_two_checkpoints();
    let run_dir = killed.path();
    let found = checkpoints(&run_dir);
    let [newest, before] = found.as_slice() else {
        panic!("{found:?}");
    };
    harm(&run_dir.join("checkpoints").join(newest));
    let ended = killed.resume(&[]).wait().succeeded().left_no_process();
    let told = format!("checkpoint {newest} ");
    let lines: Vec<&str> = ended
        .output
        .lines()
        .filter(|line| line.contains(&told))
        .collect();
    let [line] = lines.as_slice() else {
        panic!("one line about it: {lines:?}\n{}", ended.output);
    };
    assert!(line.contains(words), "{line}");
    let instead = format!("{before} is used instead");
    assert!(line.ends_with(&instead), "{line}");
    let torn = |event: &&serde_json::Value| event["event"] == "torn_checkpoint";
    assert_eq!(journal(&ended.path()).iter().filter(torn).count(), 1);
    Truth::of(STEADY).assert_same(&ended);
}

#[test]
fn a_checkpoint_with_a_flipped_bit_gives_way_to_the_one_before() {
    let flip = |checkpoint: &Path| {
        let path = checkpoint.join("state.safetensors");
        let mut bytes = std::fs::read(&path).expect("the state");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).expect("the state again");
    };
    resumed_after(flip, "is torn: the sha256 of state.safetensors is ");
}

#[test]
fn a_checkpoint_that_was_cut_short_gives_way_to_the_one_before() {
    let cut = |checkpoint: &Path| {
        let file = std::fs::File::options()
            .write(true)
            .open(checkpoint.join("state.safetensors"))
            .expect("the state");
        file.set_len(1000).expect("a shorter file");
    };
    resumed_after(cut, "is torn: state.safetensors has 1000 of ");
}

#[test]
fn a_checkpoint_that_is_gone_gives_way_to_the_one_before() {
    let remove = |checkpoint: &Path| std::fs::remove_dir_all(checkpoint).expect("removed");
    resumed_after(remove, "there is none of that name");
}

#[test]
fn without_any_checkpoint_a_resumed_run_begins_again() {
    let killed = killed_with_two_checkpoints();
    std::fs::remove_dir_all(killed.path().join("checkpoints")).expect("removed");
    let ended = killed.resume(&[]).wait().succeeded().left_no_process();
    assert!(
        ended.output.contains("nobody holds a later state"),
        "{}",
        ended.output
    );
    Truth::of(STEADY).assert_same(&ended);
}

#[test]
fn a_disk_that_fills_up_ends_the_run_and_loses_nothing() {
    // Three checkpoints of 134 MB, of which one is being written, and the best weights twice.
    let Some(disk) = Disk::of_mebibytes(900) else {
        return;
    };
    let disk = Arc::new(disk);
    let mut run = Run::start_on(disk.clone(), &arguments());
    run.until("a second epoch", |run| {
        run.path().join("checkpoints/latest").exists() && run.steps() > STEADY_STEPS as u64
    });
    let filler = disk.fill();
    let stopped = run.wait().left_no_process();
    assert_eq!(stopped.code, 6, "{}", stopped.output);
    let errors: Vec<&str> = (stopped.output.lines())
        .filter(|line| line.starts_with("error: "))
        .collect();
    let [error] = errors.as_slice() else {
        panic!("one line: {errors:?}\n{}", stopped.output);
    };
    assert!(error.contains("No space left on device"), "{error}");
    // What was there is there, and what was not whole is not.
    assert!(latest(&stopped.path()).join("manifest.json").exists());
    stopped.weights();

    // As long as there is no room the next coordinator says the same.
    let still_full = stopped.resume(&[]).wait().left_no_process();
    assert_eq!(still_full.code, 6, "{}", still_full.output);
    assert!(
        still_full.output.contains("No space left"),
        "{}",
        still_full.output
    );
    std::fs::remove_file(filler).expect("the filler");
    let ended = still_full.resume(&[]).wait().succeeded().left_no_process();
    Truth::of(STEADY).assert_same(&ended);
}

#[test]
fn a_run_directory_that_became_read_only_is_refused() {
    let Some(disk) = Disk::of_mebibytes(900) else {
        return;
    };
    let disk = Arc::new(disk);
    let mut run = Run::start_on(disk.clone(), &arguments());
    run.until("a second epoch", |run| run.steps() > STEADY_STEPS as u64);
    run.signal(Signal::INT);
    let stopped = run.wait().left_no_process();
    assert_eq!(stopped.code, 130, "{}", stopped.output);
    disk.make_read_only();
    let refused = stopped.resume(&[]).wait().left_no_process();
    assert_eq!(refused.code, 6, "{}", refused.output);
    let first = refused.output.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{}", refused.output);
    assert!(first.contains("Read-only file system"), "{first}");
    assert!(
        first.contains(&disk.inside().display().to_string()),
        "{first}"
    );
}
