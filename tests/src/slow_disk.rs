//! A slow disk: a library that is preloaded into the processes of a run delays their syncs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The delay of the processes that were started with it.
#[derive(Debug)]
pub struct SlowDisk {
    folder: tempfile::TempDir,
}

impl SlowDisk {
    /// A disk without a delay until [`SlowDisk::delay`]. None, with a printed reason, without a C
    /// compiler.
    pub fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/slow_sync.c");
        let disk = Self { folder };
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([disk.library(), source])
            .arg("-ldl")
            .status();
        match compiled {
            Ok(status) => assert!(status.success(), "cc compiles the library"),
            Err(error) => {
                println!("skipped: cc cannot be started: {error}");
                return None;
            }
        }
        disk.delay(Duration::ZERO);
        Some(disk)
    }

    /// Delays each sync from now on.
    pub fn delay(&self, delay: Duration) {
        let text = delay.as_millis().to_string();
        // Renamed, so that no reader sees an empty file.
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.file()).expect("a new name");
    }

    /// Makes a run use this disk.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.library())
            .env("SYNC_DELAY_FILE", self.file());
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("slow_sync.so")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("delay")
    }
}
