//! Files are complete, a run overwrites no other, and nothing is written outside its directory.

mod formats;
mod resume;

use std::os::unix::fs::PermissionsExt;

use coordinator_core::event::{Phases, Span};

use super::*;

fn new_store() -> (tempfile::TempDir, RunStore) {
    let parent = tempfile::tempdir().unwrap();
    let store = RunStore::create(&parent.path().join("runs/one")).unwrap();
    (parent, store)
}

/// The names in a directory, sorted.
pub(in crate::store) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn record(epoch: u32, validation_loss: f64) -> FinishedEpoch {
    FinishedEpoch {
        epoch,
        train_loss: 0.5,
        validation_loss,
        validation_accuracy: 0.75,
        lrs: [1e-5, 2e-5, 3e-5, 4e-4, 5e-4, 1e-3],
        images_per_second: 100.0,
        phases: Phases {
            data_wait: 0.25,
            forward_backward: 1.5,
            allreduce_wait: 0.125,
            optimizer: 0.5,
            validation: 0.0625,
        },
        seconds: 2.5,
        world_size: 2,
        generation: 1,
        ledger: vec![Span {
            generation: 1,
            world_size: 2,
            first: 0,
            end: 7,
        }],
    }
}

#[test]
fn a_directory_with_content_and_an_impossible_one_are_refused() {
    let (parent, store) = new_store();
    let again = RunStore::create(store.root()).unwrap_err();
    assert!(matches!(again, StoreError::Active { .. }), "{again}");
    // One that failed before it began may be tried again.
    let mut journal = Journal::open(store.root()).unwrap();
    let run_id = "of no run".to_owned();
    let started = JournalEntry::Started { run_id, workers: 1 };
    journal.append(started).unwrap();
    std::fs::write(store.root().join(".partial-1"), "half of it").unwrap();
    let root = store.root().to_owned();
    drop(store);
    let store = RunStore::create(&root).unwrap();
    assert!(Journal::open(&root).unwrap().lines().unwrap().is_empty());
    store.write(CONFIG, b"epochs = 1\n").unwrap();
    drop(store);
    let begun = RunStore::create(&root).unwrap_err();
    assert!(matches!(begun, StoreError::NotEmpty { .. }), "{begun}");
    let foreign = parent.path().join("foreign");
    std::fs::create_dir_all(foreign.join(LOGS)).unwrap();
    let refused = RunStore::create(&foreign).unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty { .. }), "{refused}");
    assert!(!foreign.join(LOCK).exists());

    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = RunStore::create(&path).unwrap_err();
        assert!(matches!(refused, StoreError::Create { .. }), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");

    let empty = parent.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    RunStore::create(&empty).unwrap();
}

#[test]
fn the_metrics_file_has_the_documented_keys_and_grows_by_lines() {
    let (_parent, mut store) = new_store();
    store.append_epoch(record(1, 0.25)).unwrap();
    store.append_epoch(record(2, f64::NAN)).unwrap();
    let text = std::fs::read_to_string(store.root().join(METRICS)).unwrap();
    let line = |epoch: u32, validation_loss: &str| {
        format!(
            "{{\"epoch\":{epoch},\"train_loss\":0.5,\"validation_loss\":{validation_loss},\
             \"validation_accuracy\":0.75,\"learning_rates\":{{\"fc\":0.001,\"layer1\":0.00002,\
             \"layer2\":0.00003,\"layer3\":0.0004,\"layer4\":0.0005,\"stem\":0.00001}},\
             \"images_per_second\":100.0,\"seconds\":{{\"allreduce_wait\":0.125,\
             \"data_wait\":0.25,\"forward_backward\":1.5,\"optimizer\":0.5,\"total\":2.5,\
             \"validation\":0.0625}},\"world_size\":2,\"generation\":1,\"ledger\":\
             [{{\"generation\":1,\"world_size\":2,\"first\":0,\"end\":7}}]}}\n"
        )
    };
    assert_eq!(text, line(1, "0.25") + &line(2, "null"));
}

#[test]
fn a_failed_write_leaves_the_former_content_and_no_litter() {
    let (_parent, mut store) = new_store();
    store.write(CURVES, b"whole").unwrap();
    let path = store.root().join(CURVES);
    let failed = atomic::write(&path, |file| {
        file.write_all(b"ha")?;
        Err(std::io::Error::other("power lost"))
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"whole");

    // The last step, the rename, fails when a folder has the name.
    std::fs::create_dir(store.root().join(METRICS)).unwrap();
    assert!(store.append_epoch(record(1, 0.5)).is_err());
    assert_eq!(names(store.root()), [CURVES, LOCK, LOGS, METRICS]);
    std::fs::remove_dir(store.root().join(METRICS)).unwrap();
    store.append_epoch(record(1, 0.5)).unwrap();
    let text = std::fs::read_to_string(store.root().join(METRICS)).unwrap();
    assert_eq!(
        text.lines().count(),
        1,
        "the failed line must not come back: {text}"
    );
}

#[test]
fn others_may_read_a_file_as_far_as_the_umask_lets_them() {
    let (_parent, store) = new_store();
    store.write(BEST_WEIGHTS, b"old").unwrap();
    store.write(BEST_WEIGHTS, b"new").unwrap();
    let path = store.root().join(BEST_WEIGHTS);
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(names(store.root()), [BEST_WEIGHTS, LOCK, LOGS]);
    // As with any new file.
    let plain = store.root().join("plain");
    std::fs::write(&plain, "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}
