//! Crashes at every stage, damage to every file, and disks that refuse.

mod any_history;
mod refusals;

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::commit::{Partial, Stage};
use super::*;
use crate::store::Blob;
use crate::store::tests::names;

/// More epochs on record than any of these checkpoints is ahead of.
const EPOCHS: u32 = 20_000;
const STAGES: [Stage; 6] = [
    Stage::State,
    Stage::Manifest,
    Stage::SetAside,
    Stage::Renamed,
    Stage::Durable,
    Stage::Pointer,
];

fn at(epoch: u32, completed: u32) -> Position {
    Position { epoch, completed }
}

fn new_checkpoints() -> (tempfile::TempDir, Checkpoints) {
    let run = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(run.path());
    (run, checkpoints)
}

fn blob(state: &[u8]) -> Blob {
    Blob::proven(state.to_vec(), Sha256::digest(state).into())
}

fn commit(checkpoints: &Checkpoints, position: Position, state: &[u8]) {
    let not_pruned = checkpoints.commit(position, &blob(state)).unwrap();
    assert!(not_pruned.is_none(), "{not_pruned:?}");
}

/// Commits until `last`, where the process is killed (nothing is cleaned up) or the file system
/// fails. Returns the last stage reached if it came to that.
fn commit_until(
    last: Stage,
    killed: bool,
    (checkpoints, position, state): (&Checkpoints, Position, &[u8]),
) -> Option<Stage> {
    let mut partial = Partial::begin(checkpoints.clone(), position).unwrap();
    partial.write(&blob(state)).unwrap();
    partial.directory.disable_cleanup(killed);
    let committed = partial.commit_by_stages(&blob(state), &mut |stage| {
        if stage == last {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    });
    match committed {
        Ok(_) => None,
        Err(StoreError::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            Some(last)
        }
        Err(other) => panic!("{other}"),
    }
}

/// The newest valid checkpoint and its state, and the lines about corrupt ones.
fn newest(checkpoints: &Checkpoints) -> (Option<(Position, Vec<u8>)>, Vec<String>) {
    let newest = checkpoints.newest(EPOCHS).unwrap();
    let whole = newest.checkpoint.map(|position| {
        let bytes = std::fs::read(checkpoints.state_path(position)).unwrap();
        (position, bytes)
    });
    (
        whole,
        newest
            .corrupt
            .iter()
            .map(CorruptCheckpoint::to_string)
            .collect(),
    )
}

#[test]
fn a_checkpoint_is_a_directory_of_two_files_and_the_pointer_names_it() {
    let (_run, checkpoints) = new_checkpoints();
    assert_eq!(newest(&checkpoints), (None, vec![]));
    assert!(!checkpoints.folder.exists(), "looking makes no folder");

    commit(&checkpoints, at(3, 12), b"abc");
    assert_eq!(
        names(&checkpoints.folder),
        ["epoch-0003-step-00012", LATEST]
    );
    let path = checkpoints.path(at(3, 12));
    assert_eq!(names(&path), [MANIFEST, STATE]);
    // The sum of `abc` is that of FIPS 180-4.
    assert_eq!(
        std::fs::read_to_string(path.join(MANIFEST)).unwrap(),
        "{\"version\":1,\"epoch\":3,\"completed\":12,\"bytes\":3,\"sha256\":\
         \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n"
    );
    let latest = std::fs::read_to_string(checkpoints.folder.join(LATEST)).unwrap();
    assert_eq!(latest, "epoch-0003-step-00012");
}

#[test]
fn a_crash_at_any_stage_leaves_the_old_or_the_new_one() {
    for killed in [true, false] {
        for stage in STAGES {
            let counts = !matches!(stage, Stage::State | Stage::Manifest | Stage::SetAside);

            // The next one.
            let (_run, checkpoints) = new_checkpoints();
            commit(&checkpoints, at(1, 9), b"old");
            if stage != Stage::SetAside {
                let reached = commit_until(stage, killed, (&checkpoints, at(2, 0), b"new"));
                assert_eq!(reached, Some(stage));
                let expected = match counts {
                    true => (at(2, 0), b"new".to_vec()),
                    false => (at(1, 9), b"old".to_vec()),
                };
                assert_eq!(newest(&checkpoints), (Some(expected), vec![]), "{stage:?}");
            }

            // The same one again, while it is the only one.
            let (_run, checkpoints) = new_checkpoints();
            commit(&checkpoints, at(1, 9), b"old");
            let reached = commit_until(stage, killed, (&checkpoints, at(1, 9), b"new"));
            assert_eq!(reached, Some(stage));
            let state: &[u8] = if counts { b"new" } else { b"old" };
            let expected = (at(1, 9), state.to_vec());
            assert_eq!(newest(&checkpoints), (Some(expected), vec![]), "{stage:?}");
            assert_eq!(
                names(&checkpoints.folder),
                ["epoch-0001-step-00009", LATEST],
                "{stage:?}"
            );
            // The next commit succeeds.
            commit(&checkpoints, at(1, 9), b"newer");
            let expected = (at(1, 9), b"newer".to_vec());
            assert_eq!(newest(&checkpoints), (Some(expected), vec![]), "{stage:?}");
        }
    }
}

fn rewrite(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from));
    std::fs::write(file, text.replace(from, to)).unwrap();
}

fn overwrite(file: &Path, bytes: &[u8]) {
    std::fs::write(file, bytes).unwrap();
}

/// A file of a checkpoint, what is done to it, and how the line that names it begins.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGE: [Damage; 12] = [
    (
        STATE,
        |file| overwrite(file, b"new"),
        "state.safetensors has 3 of 9 bytes",
    ),
    (
        STATE,
        |file| overwrite(file, b"new stati"),
        "the sha256 of state.safetensors is ",
    ),
    (
        STATE,
        |file| std::fs::remove_file(file).unwrap(),
        "state.safetensors is missing",
    ),
    (
        STATE,
        |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        },
        "state.safetensors ",
    ),
    (
        MANIFEST,
        |file| overwrite(file, b"{\"version\":1,\"epo"),
        "manifest.json is damaged: EOF",
    ),
    (
        MANIFEST,
        |file| overwrite(file, &[b' '; 1 << 20]),
        "manifest.json is damaged: EOF",
    ),
    (
        MANIFEST,
        |file| overwrite(file, b""),
        "manifest.json is damaged: EOF",
    ),
    (
        MANIFEST,
        |file| std::fs::remove_file(file).unwrap(),
        "manifest.json is missing",
    ),
    (
        MANIFEST,
        |file| rewrite(file, "\"version\":1", "\"version\":2"),
        "manifest.json has version 2, and this program reads version 1",
    ),
    (
        MANIFEST,
        |file| rewrite(file, "\"epoch\":3", "\"epoch\":4"),
        "manifest.json is that of epoch-0004-step-00012",
    ),
    (
        MANIFEST,
        |file| rewrite(file, "\"sha256\":\"", "\"sha256\":\"0"),
        "manifest.json is damaged: sha256 is no sha256",
    ),
    (
        MANIFEST,
        |file| rewrite(file, "\"bytes\":9", "\"bytes\":9,\"more\":1"),
        "manifest.json is damaged: unknown field `more`",
    ),
];

#[test]
fn damage_to_any_file_is_named_and_the_one_before_is_used() {
    for (file, damage, reason) in DAMAGE {
        let (_run, checkpoints) = new_checkpoints();
        commit(&checkpoints, at(3, 6), b"old");
        commit(&checkpoints, at(3, 12), b"new state");
        damage(&checkpoints.path(at(3, 12)).join(file));
        let (whole, lines) = newest(&checkpoints);
        assert_eq!(whole, Some((at(3, 6), b"old".to_vec())), "{reason}");
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let begin = format!("checkpoint epoch-0003-step-00012 is corrupt: {reason}");
        assert!(line.starts_with(&begin), "{line}");
        assert!(
            line.ends_with("; epoch-0003-step-00006 is used instead"),
            "{line}"
        );
    }
}

#[test]
fn the_pointer_alone_decides_nothing() {
    let (_run, checkpoints) = new_checkpoints();
    let point = |text: &str| std::fs::write(checkpoints.folder.join(LATEST), text).unwrap();
    commit(&checkpoints, at(1, 5), b"old");
    commit(&checkpoints, at(2, 0), b"new");
    let new = Some((at(2, 0), b"new".to_vec()));

    point("epoch-0009-step-00000");
    let line = "the file latest names \"epoch-0009-step-00000\": there is none of that name; \
                epoch-0002-step-00000 is used instead";
    assert_eq!(newest(&checkpoints), (new.clone(), vec![line.to_owned()]));
    point("../../\u{7f}");
    let line = "the file latest names \"../../\\u{7f}\": that is no checkpoint's name; \
                epoch-0002-step-00000 is used instead";
    assert_eq!(newest(&checkpoints), (new.clone(), vec![line.to_owned()]));
    point("epoch-0001-step-00005");
    assert_eq!(newest(&checkpoints), (new.clone(), vec![]));
    std::fs::remove_file(checkpoints.folder.join(LATEST)).unwrap();
    assert_eq!(newest(&checkpoints), (new, vec![]));

    // Ahead of two corrupt ones, and then of none.
    point("epoch-0002-step-00000");
    for position in [at(2, 0), at(1, 5)] {
        std::fs::write(checkpoints.path(position).join(STATE), b"").unwrap();
    }
    let (whole, lines) = newest(&checkpoints);
    assert_eq!(whole, None);
    assert_eq!(
        lines,
        [
            "checkpoint epoch-0002-step-00000 is corrupt: state.safetensors has 0 of 3 bytes; \
             there is no valid one",
            "checkpoint epoch-0001-step-00005 is corrupt: state.safetensors has 0 of 3 bytes; \
             there is no valid one"
        ]
    );
}

#[test]
fn pruning_keeps_two_sound_ones_and_never_the_last_whole_one_goes() {
    let (_run, checkpoints) = new_checkpoints();
    for step in 1..=4 {
        commit(&checkpoints, at(1, step), b"state");
    }
    assert_eq!(checkpoints.positions().unwrap(), [at(1, 4), at(1, 3)]);

    // A corrupt one does not count among those that are kept.
    std::fs::remove_file(checkpoints.path(at(1, 4)).join(MANIFEST)).unwrap();
    commit(&checkpoints, at(1, 5), b"state");
    assert_eq!(checkpoints.positions().unwrap(), [at(1, 5), at(1, 3)]);

    // The run was rolled back, and later ones only look valid.
    for position in [at(1, 5), at(1, 3)] {
        std::fs::write(checkpoints.path(position).join(STATE), b"stati").unwrap();
    }
    commit(&checkpoints, at(1, 1), b"whole");
    let (whole, lines) = newest(&checkpoints);
    assert_eq!(whole, Some((at(1, 1), b"whole".to_vec())));
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_run_that_went_back_forgets_what_came_later() {
    let (_run, checkpoints) = new_checkpoints();
    assert_eq!(checkpoints.discard_after(at(9, 9)).unwrap(), []);
    commit(&checkpoints, at(2, 3), b"old");
    commit(&checkpoints, at(3, 0), b"new");
    assert_eq!(checkpoints.discard_after(at(3, 0)).unwrap(), []);

    assert_eq!(checkpoints.discard_after(at(2, 9)).unwrap(), [at(3, 0)]);
    assert_eq!(
        names(&checkpoints.folder),
        ["epoch-0002-step-00003", LATEST]
    );
    let old = Some((at(2, 3), b"old".to_vec()));
    assert_eq!(newest(&checkpoints), (old, vec![]), "the pointer has moved");

    assert_eq!(checkpoints.discard_after(at(1, 0)).unwrap(), [at(2, 3)]);
    assert_eq!(newest(&checkpoints), (None, vec![]));
    assert_eq!(names(&checkpoints.folder), Vec::<String>::new());
}
