//! Processes that compute on a fake GPU: `tests/fakegpu/` answers for CUDA, NCCL, cuBLAS and cuDNN;
//! or on a real one, with its NCCL alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::folder;

/// The libraries that the wheels for a CPU do not have, and the driver's.
const LIBRARIES: [&str; 11] = [
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcuda.so.1",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcurand.so.10",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
];

/// A machine with eight GPUs.
#[derive(Debug)]
pub struct FakeGpu {
    preloaded: OsString,
    /// None where the libraries are real.
    libraries: Option<tempfile::TempDir>,
    /// Where ranks exchange data.
    exchange: tempfile::TempDir,
}

impl FakeGpu {
    /// None, with a line that says why, where it could not be compiled. In CI that is a failure.
    pub fn new() -> Option<Self> {
        let gpu = built("libfakegpu.so");
        if gpu.is_none() {
            let missing = "there are no headers of CUDA and NCCL beside libtorch";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            println!("skipped: {missing}");
        }
        let gpu = gpu?;
        let libraries = tempfile::tempdir().expect("a temporary folder");
        for name in LIBRARIES {
            std::os::unix::fs::symlink(&gpu, libraries.path().join(name)).expect("a link");
        }
        Some(Self::with(gpu.into(), Some(libraries)))
    }

    /// The GPUs of this machine, with an NCCL that lets ranks share one. None as above.
    pub fn real_with_fake_nccl() -> Option<Self> {
        let nccl = built("libfakenccl.so")?;
        Some(Self::with(nccl.into(), None))
    }

    /// The NCCL of [`Self::real_with_fake_nccl`], over the fake GPU. None as above.
    pub fn with_nccl_of_a_real_one() -> Option<Self> {
        let mut gpu = Self::new()?;
        let mut both = OsString::from(built("libfakenccl.so")?);
        both.push(" ");
        both.push(&gpu.preloaded);
        gpu.preloaded = both;
        Some(gpu)
    }

    fn with(preloaded: OsString, libraries: Option<tempfile::TempDir>) -> Self {
        let memory = Path::new("/dev/shm");
        let exchange = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        Self {
            preloaded,
            libraries,
            exchange: exchange.expect("a temporary folder"),
        }
    }

    /// Lets NCCL report to all ranks, from now on, that it lost a peer, or no longer.
    pub fn lose_a_peer(&self, lost: bool) {
        self.mark("lost-a-peer", lost);
    }

    /// Holds all ranks but the first while NCCL sets up, from now on, or no longer.
    pub fn hold_set_up(&self, held: bool) {
        self.mark("hold-set-up", held);
    }

    /// Each collective takes 0.45 s to start, from now on, or no longer.
    pub fn slow_starts(&self, slow: bool) {
        self.mark("slow-starts", slow);
    }

    /// Whether a collective of this process starts, while that is slow.
    pub fn is_starting(&self, pid: u32) -> bool {
        self.exchange.path().join(format!("starts.{pid}")).exists()
    }

    /// From now on, all work of this process fails.
    pub fn break_gpu_of(&self, pid: u32) {
        self.mark(&format!("fault.{pid}"), true);
    }

    /// GPUs cannot be used by processes that start from now on, or no longer.
    pub fn reset(&self, resetting: bool) {
        self.mark("resetting", resetting);
    }

    /// Whether this process is, or was, held.
    pub fn is_held(&self, pid: u32) -> bool {
        self.exchange.path().join(format!("held.{pid}")).exists()
    }

    fn mark(&self, name: &str, there: bool) {
        let file = self.exchange.path().join(name);
        let done = match there {
            true => std::fs::write(file, ""),
            false => std::fs::remove_file(file),
        };
        done.expect("the folder is writable");
    }

    /// What a process has asked of the device so far, if `FAKEGPU_TRACE` is set: a line for each
    /// launch, copy and synchronisation.
    pub fn trace(&self, pid: u32) -> String {
        let file = self.exchange.path().join(format!("trace.{pid}"));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Lets a process and those that it starts see `visible` of the GPUs.
    pub fn prepare(&self, command: &mut Command, visible: &str) {
        command
            .env("LD_PRELOAD", &self.preloaded)
            .env("CUDA_VISIBLE_DEVICES", visible)
            .env("FAKEGPU_DIR", self.exchange.path());
        let Some(libraries) = &self.libraries else {
            return;
        };
        let mut path = OsString::from(libraries.path());
        if let Some(further) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(further);
        }
        command
            .env("LD_LIBRARY_PATH", path)
            // What no kernel writes is zero in new memory, and anything in memory that is used
            // again: a loss that is no number ends a run.
            .env("PYTORCH_NO_CUDA_MEMORY_CACHING", "1");
    }
}

/// A library that lies beside the binaries.
fn built(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    path.is_file().then_some(path)
}
