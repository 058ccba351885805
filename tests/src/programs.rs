//! The programs under test, and the folder that they run in.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Run;

/// The folder of the binaries: `BINARIES` names one that holds prebuilt ones, else it is that of the
/// profile that the caller was built in.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("BINARIES").filter(|folder| !folder.is_empty()) {
        return std::path::absolute(folder).expect("a path");
    }
    let mut path = std::env::current_exe().expect("a test has an executable");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path
}

/// A binary of this workspace.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --workspace` makes it",
        path.display()
    );
    path
}

/// The folder that all tests run in, so that they share one demo set.
pub fn scratch() -> PathBuf {
    let mut path = binary("coordinator");
    path.pop();
    path.pop();
    let path = path.join("tmp").join("integration");
    std::fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

/// The images of the demo set, which the first run draws.
pub fn demo_set() -> PathBuf {
    let folder = scratch().join("data/demo/101_ObjectCategories");
    if !folder.exists() {
        Run::small(1, &["--epochs=1"]).wait().succeeded();
    }
    folder
}

/// A command that starts the coordinator; `FINETUNE_*` variables of the caller are removed.
pub fn coordinator() -> Command {
    clean(Command::new(binary("coordinator")))
}

/// A command that starts a worker, which joins the run at `url`.
pub fn worker(url: &str) -> Command {
    let mut command = clean(Command::new(binary("worker")));
    command.args(["--coordinator", url]);
    command
}

/// The same folder and environment, wherever the tests are started from.
pub(crate) fn clean(mut command: Command) -> Command {
    command.current_dir(scratch()).stdin(Stdio::null());
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("FINETUNE_")) {
        command.env_remove(variable);
    }
    command
}
