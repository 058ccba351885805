//! A run directory that is opened again.

use super::*;

/// Ends the run and opens its directory again.
fn again(store: RunStore) -> Result<RunStore, StoreError> {
    let root = store.root().to_owned();
    drop(store);
    RunStore::open(&root)
}

#[test]
fn two_coordinators_never_hold_one_directory() {
    let (_parent, store) = new_store();
    store.write(CONFIG, b"epochs = 1\n").unwrap();
    let root = store.root().to_owned();
    let second = RunStore::open(&root).unwrap_err();
    assert!(matches!(second, StoreError::Active { .. }), "{second}");
    assert!(second.to_string().contains(root.to_str().unwrap()));

    let store = again(store).unwrap();
    let third = RunStore::open(&root).unwrap_err();
    assert!(matches!(third, StoreError::Active { .. }), "{third}");
    // Processes that it starts do not hold the directory longer than it lives.
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let fourth = again(store);
    child.kill().unwrap();
    child.wait().unwrap();
    fourth.unwrap();
}

#[test]
fn what_is_no_run_directory_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for path in [parent.path(), &file, &parent.path().join("none")] {
        let refused = RunStore::open(path).unwrap_err();
        assert!(matches!(refused, StoreError::NotARun { .. }), "{refused}");
        assert!(refused.to_string().contains(path.to_str().unwrap()));
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn everything_comes_back_and_half_written_files_go() {
    let (_parent, store) = new_store();
    store.write(CONFIG, b"").unwrap();
    let mut store = again(store).unwrap();
    assert_eq!(store.read_split().unwrap(), None);
    assert_eq!(store.read_address().unwrap(), None);
    assert_eq!(store.best_epoch().unwrap(), None);
    assert_eq!(store.epochs(), []);

    let split = Split {
        fingerprint: "ba78".to_owned(),
        classes: vec!["ä \"b\"".to_owned()],
        train: vec!["a/1.jpg".to_owned()],
        validation: vec![],
    };
    store.write_split(&split).unwrap();
    for address in ["127.0.0.1:4321", "[::1]:80"] {
        let address = address.parse().unwrap();
        store.write_address(address).unwrap();
        assert_eq!(store.read_address().unwrap(), Some(address));
    }
    store.append_epoch(record(1, 0.5)).unwrap();
    std::fs::write(store.root().join(".partial-x"), "half").unwrap();
    let mut store = again(store).unwrap();
    assert_eq!(store.read_split().unwrap(), Some(split));
    assert_eq!(store.epochs(), [record(1, 0.5)]);
    assert!(!store.root().join(".partial-x").exists());

    // New lines join the old ones.
    store.append_epoch(record(2, 0.25)).unwrap();
    assert_eq!(again(store).unwrap().epochs().len(), 2);
}

#[test]
fn damaged_files_are_named() {
    let (_parent, store) = new_store();
    store.write(SPLIT, b"{\"classes\":[").unwrap();
    store.write(ADDRESS, b"localhost\n").unwrap();
    for (refused, file) in [
        (store.read_split().unwrap_err(), SPLIT),
        (store.read_address().unwrap_err(), ADDRESS),
    ] {
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains(file), "{refused}");
    }
}

#[test]
fn a_run_that_went_back_forgets_its_later_epochs() {
    let (_parent, mut store) = new_store();
    store.write(CONFIG, b"").unwrap();
    for epoch in 1..=3 {
        store.append_epoch(record(epoch, 0.5)).unwrap();
    }
    store.truncate_epochs(3).unwrap();
    assert_eq!(store.epochs().len(), 3);
    store.truncate_epochs(1).unwrap();
    store.append_epoch(record(2, 0.125)).unwrap();
    let expected = [record(1, 0.5), record(2, 0.125)];
    assert_eq!(store.epochs(), expected);

    // When the file cannot be written, nothing is forgotten.
    let path = store.root().join(METRICS);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(store.truncate_epochs(0).is_err());
    assert_eq!(store.epochs(), expected);
    std::fs::remove_dir(&path).unwrap();
    store.truncate_epochs(0).unwrap();
    assert_eq!(again(store).unwrap().epochs(), []);
}
