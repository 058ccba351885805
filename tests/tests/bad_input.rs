//! Invalid input ends the run with one line of explanation and an exit code of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;

use integration_tests::{Ended, Run, SMALL, demo_set, scratch};

/// Starts a small run with these arguments as well, and checks its exit code and message.
fn refused(arguments: &[&str], code: i32, words: &[&str]) -> Ended {
    let ended = Run::start(&[&["--workers=2"], SMALL, arguments].concat()).wait();
    assert_eq!(ended.code, code, "{arguments:?}:\n{}", ended.output);
    for word in words {
        assert!(
            ended.output.contains(word),
            "{arguments:?}: no `{word}` in:\n{}",
            ended.output
        );
    }
    assert!(!ended.output.contains("panicked"), "{}", ended.output);
    assert!(
        !ended.output.contains("stack backtrace"),
        "{}",
        ended.output
    );
    ended
}

/// A folder of two classes with eight images each, copied from the demo set.
fn two_classes() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut classes: Vec<_> = std::fs::read_dir(demo_set()).unwrap().flatten().collect();
    classes.sort_by_key(std::fs::DirEntry::file_name);
    for class in &classes[..2] {
        let target = root.path().join(class.file_name());
        std::fs::create_dir(&target).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(class.path()).unwrap().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in &files[..8] {
            std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    root
}

fn data(path: &Path) -> String {
    format!("--data={}", path.display())
}

#[test]
fn invalid_settings() {
    refused(&["--global-batch=1"], 2, &["global-batch"]);
    refused(&["--validation-fraction=1.5"], 2, &["validation-fraction"]);
    refused(&["--layer-lr=conv1=1"], 2, &["conv1", "stem"]);
    let ended = Run::start(&["--workers=0", "--data=demo"]).wait();
    assert_eq!(ended.code, 2, "{}", ended.output);
    assert!(ended.output.contains("workers"), "{}", ended.output);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "global-bacth = 3\n").unwrap();
    let file = format!("--config={}", file.path().display());
    refused(&[&file], 2, &["global-bacth", "global-batch"]);
}

#[test]
fn folders_without_a_data_set() {
    refused(&["--data=/no/such/folder"], 3, &["/no/such/folder"]);
    let empty = tempfile::tempdir().unwrap();
    refused(&[&data(empty.path())], 3, &["class"]);
    std::fs::create_dir(empty.path().join("only")).unwrap();
    refused(&[&data(empty.path())], 3, &["class"]);
}

#[test]
fn damaged_images_are_named_and_skipped_or_fatal() {
    let root = two_classes();
    let class = std::fs::read_dir(root.path())
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path();
    let good = std::fs::read(
        std::fs::read_dir(&class)
            .unwrap()
            .flatten()
            .next()
            .unwrap()
            .path(),
    )
    .unwrap();
    std::fs::write(class.join("empty.jpg"), []).unwrap();
    std::fs::write(class.join("text.jpg"), "not an image").unwrap();
    std::fs::write(class.join("truncated.jpg"), &good[..good.len() / 2]).unwrap();
    let arguments = [
        &["--workers=2"],
        SMALL,
        &["--epochs=1", "--limit-per-class=100"],
    ]
    .concat();
    let ended = Run::start(&[&arguments[..], &[&data(root.path())]].concat())
        .wait()
        .succeeded();
    for name in ["empty.jpg", "text.jpg", "truncated.jpg"] {
        assert!(
            ended.output.contains(name),
            "no {name} in:\n{}",
            ended.output
        );
    }
    let split = std::fs::read_to_string(ended.path().join("split.json")).unwrap();
    assert!(
        !split.contains("empty.jpg") && !split.contains("truncated.jpg"),
        "{split}"
    );
    refused(
        &[&data(root.path()), "--limit-per-class=100", "--strict-data"],
        3,
        &["strict"],
    );
}

#[test]
fn weights_of_another_model() {
    refused(&["--pretrained=/no/such.pth"], 4, &["/no/such.pth"]);
    let other = tempfile::Builder::new()
        .suffix(".safetensors")
        .tempfile()
        .unwrap();
    let header = br#"{"encoder.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([0; 4]);
    std::fs::write(other.path(), bytes).unwrap();
    let flag = format!("--pretrained={}", other.path().display());
    refused(&[&flag], 4, &["encoder.weight", "conv1.weight"]);
}

#[test]
fn addresses_in_use_and_folders_that_cannot_be_created() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&[&format!("--listen={address}")], 5, &[&address]);
    refused(&[&format!("--metrics-listen={address}")], 5, &[&address]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = format!("--run-dir={}/run", file.path().display());
    let ended = integration_tests::coordinator()
        .args(["--workers=1", "--data=demo", &below])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
}

#[test]
fn missing_programs_gpus_and_libraries() {
    refused(
        &["--worker-binary=/no/such/worker"],
        8,
        &["/no/such/worker"],
    );
    if !Path::new("/proc/driver/nvidia").exists() {
        refused(&["--device=cuda"], 8, &["GPU"]);
    }
    let worker = scratch().join("worker-without-libtorch");
    let flag = format!("--worker-binary={}", worker.display());
    let ends_with = |message: &str, code: u8| {
        std::fs::write(
            &worker,
            format!("#!/bin/sh\necho '{message}' >&2\nexit {code}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    // The message of the dynamic linker where libtorch is not installed.
    ends_with(
        "worker: error while loading shared libraries: libtorch_cpu.so: cannot open shared object \
         file: No such file or directory",
        127,
    );
    refused(&[&flag], 8, &["libtorch_cpu.so", "make setup"]);
    // That of deploy/dist/worker.
    ends_with(
        "error: /a is libtorch 2.10.0, and the worker needs 2.11.0: set LIBTORCH",
        8,
    );
    refused(&[&flag], 8, &["libtorch 2.10.0", "set LIBTORCH"]);
}
