//! Programs beside the coordinator and its workers: where they are, and what they print.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::folder;

use crate::setting::Waits;

/// The longest time of a program that is not a run.
const LIMIT: Duration = Duration::from_secs(500);

/// The example `step`.
pub(crate) fn step() -> Result<PathBuf, Waits> {
    let candidates = ["step", "examples/step"].map(|name| folder().join(name));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Waits::for_("the example `step` (`make gpu-check` builds it)"))
}

/// The binary of tests that has this test: a packaged one, or the newest that cargo made of `stem`.
pub(crate) fn tests(packaged: &str, stem: &str, test: &str) -> Result<PathBuf, Waits> {
    let mut built: Vec<PathBuf> = std::fs::read_dir(folder().join("deps"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let hash = name
                .strip_prefix(stem)
                .and_then(|rest| rest.strip_prefix('-'));
            hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
        .collect();
    built.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    built.push(folder().join(packaged));
    let has_test = |path: &PathBuf| {
        let listed = Command::new(path)
            .arg("--list")
            .stderr(Stdio::null())
            .output();
        listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains(test))
    };
    let found = built.into_iter().rev().find(has_test);
    found.ok_or_else(|| {
        Waits::for_(format!(
            "the tests `{packaged}` (`make gpu-check` builds them)"
        ))
    })
}

/// Runs a program to its end; whether it exited with 0, and all that it printed. Panics if it takes
/// too long.
pub(crate) fn output(command: &mut Command) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("output");
    let file = File::create(&path).expect("a file");
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file);
    let mut child = command.spawn().expect("the program starts");
    let deadline = Instant::now() + LIMIT;
    loop {
        let text =
            || String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        if let Some(status) = child.try_wait().expect("a child of this process") {
            return (status.success(), text());
        }
        if Instant::now() > deadline {
            // It fails only if the child has exited meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            panic!("no end of {command:?} within {LIMIT:?}:\n{}", text());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a program can be started.
pub(crate) fn exists(program: &str) -> bool {
    let tried = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok()
}
