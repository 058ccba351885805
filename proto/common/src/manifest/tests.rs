use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn tree(files: &[(&str, usize)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, size) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7u8; *size]).unwrap();
    }
    dir
}

#[test]
fn a_received_list_is_the_same_list_and_no_path_leaves_its_folder() {
    let dir = tree(&[("a/1.jpg", 1), ("b/2.jpg", 2)]);
    let here = Manifest::scan(dir.path(), None).unwrap();
    let dataset = |path: &str| {
        let mut files = here.entries();
        path.clone_into(&mut files[1].path);
        let classes = here.classes.clone();
        v1::Dataset { classes, files }
    };
    let there = Manifest::listed(dataset("b/2.jpg"), |print| PathBuf::from(print)).unwrap();
    assert_eq!(there.root, PathBuf::from(here.fingerprint()));
    assert_eq!(listing(&there), listing(&here));
    for path in [
        "b/../../x",
        "../b/x",
        "b/",
        "b",
        "c/2.jpg",
        "b//2.jpg",
        "b/x/.y/2.jpg",
        "/etc/passwd",
        "b/.x",
        "",
    ] {
        let refused = Manifest::listed(dataset(path), |_| PathBuf::new());
        assert!(refused.is_err(), "{path}");
    }
}

fn listing(manifest: &Manifest) -> Vec<(&str, u32, u64)> {
    manifest
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.label, f.size))
        .collect()
}

#[test]
fn names_are_sorted_bytewise_and_hidden_ones_are_skipped() {
    let dir = tree(&[
        ("b/image_2.jpg", 1),
        ("b/image_10.jpg", 2),
        ("b/notes.txt", 3),
        ("b/.DS_Store", 9),
        ("b/nested/deep.jpg", 9),
        ("Z/x.JPG", 4),
        ("Z/a.txt", 4),
        ("Z/README", 4),
        ("lost+found/x", 4),
        ("__MACOSX/._x", 4),
        ("é/y.jpeg", 5),
        (".git/z.jpg", 9),
        ("README.md", 9),
    ]);
    let manifest = Manifest::scan(dir.path(), None).unwrap();
    assert_eq!(manifest.classes, ["Z", "b", "é"]);
    assert_eq!(
        listing(&manifest),
        [
            ("Z/x.JPG", 0, 4),
            ("b/image_10.jpg", 1, 2),
            ("b/image_2.jpg", 1, 1),
            ("b/nested/deep.jpg", 1, 9),
            ("é/y.jpeg", 2, 5),
        ]
    );
    assert_eq!(
        manifest.passed_over,
        [
            "passed over folders without pictures: __MACOSX, lost+found",
            "passed over files that are no pictures by their names: 2 without an extension, 2 .txt",
        ]
    );
    let limited = Manifest::scan(dir.path(), Some(1)).unwrap();
    assert_eq!(
        listing(&limited),
        [
            ("Z/x.JPG", 0, 4),
            ("b/image_10.jpg", 1, 2),
            ("é/y.jpeg", 2, 5)
        ]
    );
}

#[test]
fn both_layouts_give_one_fingerprint_and_any_change_another() {
    let nested = tree(&[
        ("101_ObjectCategories/a/1.jpg", 1),
        ("101_ObjectCategories/b/2.jpg", 2),
    ]);
    let flat = tree(&[("a/1.jpg", 1), ("b/2.jpg", 2)]);
    let nested = Manifest::scan(nested.path(), None).unwrap();
    let flat = Manifest::scan(flat.path(), None).unwrap();
    assert_eq!(nested.fingerprint(), flat.fingerprint());
    assert_eq!(nested.location(1), Some(nested.root.join("b/2.jpg")));

    for other in [
        [("a/1.jpg", 1), ("b/2.jpg", 3)],
        [("a/1.jpg", 1), ("b/3.jpg", 2)],
    ] {
        let other = tree(&other);
        let other = Manifest::scan(other.path(), None).unwrap();
        assert_ne!(other.fingerprint(), flat.fingerprint());
    }
}

#[test]
fn each_unusable_folder_has_its_own_message() {
    let message = |path: &Path| Manifest::scan(path, None).unwrap_err().to_string();

    let one = tree(&[("only/1.jpg", 1)]);
    assert!(message(&one.path().join("absent")).starts_with("no data folder at"));
    assert!(message(&one.path().join("only/1.jpg")).contains("is not a directory"));
    assert!(message(one.path()).contains("has 1 class folder(s), at least 2"));

    let empty = tree(&[("a/1.jpg", 1), ("b/.hidden", 1)]);
    assert!(message(empty.path()).contains("b` has no pictures"));

    let high = tree(&[("x/a/1.jpg", 1), ("x/b/2.jpg", 1), ("__MACOSX/._x", 1)]);
    let below = high.path().join("x");
    let expected = format!("did you mean --data `{}`", below.display());
    assert!(message(high.path()).contains(&expected));

    let split = tree(&[
        ("train/a/1.jpg", 1),
        ("train/b/2.jpg", 1),
        ("val/a/3.jpg", 1),
    ]);
    let part = split.path().join("train");
    let said = message(split.path());
    assert!(said.contains("holds train, val"), "{said}");
    assert!(said.contains(&part.display().to_string()), "{said}");

    let odd = tree(&[("a/1.jpg", 1), ("b/2.jpg", 1)]);
    fs::write(
        odd.path().join("a").join(OsStr::from_bytes(b"\xff.jpg")),
        "x",
    )
    .unwrap();
    assert!(message(odd.path()).contains("is not valid UTF-8"));
}
