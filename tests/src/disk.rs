//! A small file system for one run, which a test can fill up or make read-only.
//!
//! It is a tmpfs in a mount namespace, which a sleeping process keeps alive. Processes of the
//! run enter the namespace; the test sees the files through `/proc/PID/root`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs::{binary, clean};

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    at: tempfile::TempDir,
}

impl Disk {
    /// A file system of `size` MiB; none, with a printed reason, without the right to mount one.
    pub fn of_mebibytes(size: u32) -> Option<Self> {
        let at = tempfile::tempdir().expect("a temporary folder");
        let script = format!(
            "mount -t tmpfs -o size={size}m tmpfs \"$0\" && touch \"$0\"/mounted && exec sleep 3600"
        );
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(at.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let holder = match holder {
            Ok(holder) => holder,
            Err(error) => {
                println!("skipped: unshare cannot be started: {error}");
                return None;
            }
        };
        let mut disk = Self { holder, at };
        let deadline = Instant::now() + Duration::from_secs(10);
        let mounted = disk.outside().join("mounted");
        while !mounted.exists() {
            let ended = disk.holder.try_wait().expect("a child of this process");
            if ended.is_some() || Instant::now() > deadline {
                println!("skipped: a mount namespace is not permitted here");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(disk)
    }

    /// The mount point, inside the namespace.
    pub fn inside(&self) -> &Path {
        self.at.path()
    }

    /// The same folder, for processes outside the namespace.
    pub fn outside(&self) -> PathBuf {
        let path = self.at.path().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(path)
    }

    /// A command that starts the coordinator inside the namespace.
    pub(crate) fn coordinator(&self) -> Command {
        let mut command = clean(self.enter());
        command.arg(binary("coordinator"));
        command
    }

    /// Fills the file system to the last byte; the file that does is returned.
    pub fn fill(&self) -> PathBuf {
        let path = self.outside().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        for piece in [1 << 20, 1 << 12, 1] {
            while std::io::Write::write_all(&mut file, &vec![0; piece]).is_ok() {}
        }
        path
    }

    /// Remounts the file system read-only. No file may be open for writing.
    pub fn make_read_only(&self) {
        let status = self
            .enter()
            .args(["mount", "-o", "remount,ro"])
            .arg(self.inside())
            .status();
        assert!(status.expect("mount starts").success(), "remount");
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.id().to_string(), "--"]);
        // `clean` sets the folder of the program.
        command.current_dir("/");
        command
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Both fail only if it has exited.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
