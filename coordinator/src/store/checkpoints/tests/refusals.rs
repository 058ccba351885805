//! File systems that do not take a checkpoint.

use std::fs::File;

use tempfile::{NamedTempFile, TempPath};

use super::*;

#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let (_run, checkpoints) = new_checkpoints();
    commit(&checkpoints, at(1, 1), b"state");
    let mut full = Partial::begin(checkpoints.clone(), at(1, 2)).unwrap();
    let path = full.directory.path().join("full");
    std::fs::write(&path, "").unwrap();
    full.state = NamedTempFile::from_parts(
        File::options().write(true).open("/dev/full").unwrap(),
        TempPath::try_from_path(path).unwrap(),
    );
    let refused = full.write(&blob(b"state")).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("epoch-0001-step-00002/state.safetensors: No space left on device"),
        "{refused}"
    );
    drop(full);
    assert_eq!(
        names(&checkpoints.folder),
        ["epoch-0001-step-00001", LATEST]
    );
    let whole = Some((at(1, 1), b"state".to_vec()));
    assert_eq!(newest(&checkpoints), (whole, vec![]));
}

#[test]
fn a_place_that_takes_no_files_is_a_typed_error() {
    let run = tempfile::tempdir().unwrap();
    let file = run.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = Checkpoints::open(&file);
    let refused = below.commit(at(1, 1), &blob(b"")).unwrap_err();
    assert!(matches!(refused, StoreError::Write { .. }), "{refused}");
    let refused = below.newest(EPOCHS).unwrap_err();
    assert!(matches!(refused, StoreError::Read { .. }), "{refused}");

    // A checkpoint that cannot be removed is reported, and costs the new one nothing.
    let checkpoints = Checkpoints::open(run.path());
    std::fs::create_dir(&checkpoints.folder).unwrap();
    std::fs::write(checkpoints.path(at(1, 1)), "a file").unwrap();
    let not_pruned = checkpoints.commit(at(1, 2), &blob(b"state")).unwrap();
    let refused = not_pruned.unwrap().to_string();
    assert!(refused.contains("epoch-0001-step-00001: "), "{refused}");
    let whole = Some((at(1, 2), b"state".to_vec()));
    assert_eq!(newest(&checkpoints), (whole, vec![]));
}

#[test]
fn only_a_position_s_own_name_reads_as_it() {
    for position in [at(1, 0), at(3, 12), at(12_345, 1_234_567)] {
        assert_eq!(position::parse(&position::name(position)), Some(position));
    }
    for name in [
        "",
        "epoch-1-step-0",
        "epoch-0001-step-+0001",
        "epoch-0001-step-00001 ",
        "latest",
    ] {
        assert_eq!(position::parse(name), None, "{name}");
    }
    assert!(at(3, 12) < at(4, 0) && at(4, 0) < at(4, 1));
}
