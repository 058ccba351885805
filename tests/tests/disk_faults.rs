//! Disks that fill up, are read-only, or return corrupt data.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use integration_tests::baseline::Baseline;
use integration_tests::disk::Disk;
use integration_tests::{Ended, Run, SMALL, STEADY, STEADY_STEPS, journal, kill};
use rustix::process::Signal;

fn arguments() -> Vec<&'static str> {
    [&["--workers=2"], SMALL, STEADY].concat()
}

/// The checkpoint that `latest` names.
fn latest(run_dir: &Path) -> Option<PathBuf> {
    let folder = run_dir.join("checkpoints");
    let name = std::fs::read_to_string(folder.join("latest")).ok()?;
    Some(folder.join(name))
}

/// The names of all checkpoints, oldest first.
fn checkpoints(run_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run_dir.join("checkpoints"));
    let names = entries.into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("epoch-"))
        .collect();
    names.sort();
    names
}

/// A run of which all processes were killed once there were two checkpoints, and their names.
fn killed_with_two_checkpoints() -> (Ended, String, String) {
    let arguments = [&arguments()[..], &["--checkpoint-every=2"]].concat();
    let mut run = Run::start(&arguments);
    run.until("a second checkpoint", |run| {
        let (newest, all) = (latest(&run.path()), checkpoints(&run.path()));
        all.len() >= 2 && newest.is_some_and(|newest| newest.ends_with(&all[1]))
    });
    let workers = run.workers();
    run.signal(Signal::KILL);
    workers.into_iter().for_each(kill);
    let killed = run.wait().left_no_process();
    let all = checkpoints(&killed.path());
    let [.., before, newest] = all.as_slice() else {
        panic!("{all:?}");
    };
    let (before, newest) = (before.clone(), newest.clone());
    (killed, before, newest)
}

/// Resumes the run, and returns the line about the checkpoint `name`.
fn resumed(killed: Ended, name: &str) -> String {
    let ended = killed.resume(&[]).wait().succeeded().left_no_process();
    Baseline::of(STEADY).assert_same(&ended);
    let journal = journal(&ended.path());
    let about_it = journal.iter().filter(|entry| {
        entry["event"] == "corrupt_checkpoint" && entry["reason"].to_string().contains(name)
    });
    let reasons: Vec<&str> = about_it.filter_map(|e| e["reason"].as_str()).collect();
    let [reason] = reasons[..] else {
        panic!("{reasons:?} about {name}:\n{}", ended.output);
    };
    let printed = ended.output.lines().filter(|line| *line == reason);
    assert_eq!(printed.count(), 1, "{}", ended.output);
    reason.to_owned()
}

#[test]
fn a_checkpoint_with_a_flipped_bit_is_skipped_for_the_one_before() {
    let (killed, before, newest) = killed_with_two_checkpoints();
    let path = killed
        .path()
        .join("checkpoints")
        .join(&newest)
        .join("state.safetensors");
    let mut bytes = std::fs::read(&path).expect("the state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).expect("the state again");
    let line = resumed(killed, &newest);
    assert!(
        line.contains("is corrupt: the sha256 of state.safetensors is "),
        "{line}"
    );
    assert!(
        line.ends_with(&format!("{before} is used instead")),
        "{line}"
    );
}

#[test]
fn a_missing_checkpoint_is_skipped_for_the_one_before() {
    let (killed, before, newest) = killed_with_two_checkpoints();
    std::fs::remove_dir_all(killed.path().join("checkpoints").join(&newest)).expect("removed");
    let line = resumed(killed, &newest);
    assert!(line.contains("there is none of that name"), "{line}");
    assert!(
        line.ends_with(&format!("{before} is used instead")),
        "{line}"
    );
}

#[test]
fn without_a_valid_checkpoint_the_run_starts_again() {
    let (killed, before, newest) = killed_with_two_checkpoints();
    let folder = killed.path().join("checkpoints");
    for name in checkpoints(&killed.path()) {
        if name < before {
            std::fs::remove_dir_all(folder.join(name)).expect("removed");
        }
    }
    std::fs::remove_file(folder.join(&before).join("manifest.json")).expect("removed");
    let state = folder.join(&newest).join("state.safetensors");
    let file = std::fs::File::options()
        .write(true)
        .open(state)
        .expect("the state");
    file.set_len(1000).expect("a shorter file");
    let line = resumed(killed, &newest);
    assert!(
        line.contains("is corrupt: state.safetensors has 1000 of "),
        "{line}"
    );
    assert!(line.ends_with("there is no valid one"), "{line}");
}

#[test]
fn a_full_disk_ends_the_run_and_loses_nothing() {
    // Three checkpoints of 134 MB, of which one is being written, and the best weights twice.
    let Some(disk) = Disk::of_mebibytes(900) else {
        return;
    };
    let disk = Arc::new(disk);
    // With a checkpoint every two steps, one is written after the disk is full.
    let arguments = [&arguments()[..], &["--checkpoint-every=2"]].concat();
    let mut run = Run::start_on(disk.clone(), &arguments);
    run.until("a second epoch", |run| {
        let is_there = |name: &str| run.path().join(name).exists();
        let saved = is_there("checkpoints/latest") && is_there("best.safetensors");
        saved && run.steps() > STEADY_STEPS as u64
    });
    disk.fill();
    let stopped = run.wait().left_no_process();
    assert_eq!(stopped.code, 6, "{}", stopped.output);
    let errors: Vec<&str> = (stopped.output.lines())
        .filter(|line| line.starts_with("error: "))
        .collect();
    let [error] = errors.as_slice() else {
        panic!("not one error line: {errors:?}\n{}", stopped.output);
    };
    assert!(error.contains("No space left on device"), "{error}");
    // Complete files are kept, and incomplete ones are not.
    let newest = latest(&stopped.path()).expect("a checkpoint");
    assert!(newest.join("manifest.json").exists());
    stopped.weights();

    // Incomplete files were removed, so there is some space again; with that used up as well, the
    // next coordinator reports the same.
    let filler = disk.fill();
    let still_full = stopped.resume(&[]).wait().left_no_process();
    assert_eq!(still_full.code, 6, "{}", still_full.output);
    assert!(
        still_full.output.contains("No space left"),
        "{}",
        still_full.output
    );
    std::fs::remove_file(filler).expect("the filler");
    let ended = still_full.resume(&[]).wait().succeeded().left_no_process();
    Baseline::of(STEADY).assert_same(&ended);
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
