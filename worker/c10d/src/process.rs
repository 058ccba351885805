//! What libtorch and CUDA take from the environment of the process, which libtorch it has loaded,
//! and how the process ends.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// What the watchdog of a process group does, so that a broken group ends and its process goes
/// on. By default it ends the process.
const DEFAULTS: [(&str, &str); 6] = [
    // When a collective fails or is too slow, the watchdog aborts the communicator: the device
    // stops waiting, and nothing else happens.
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"),
    // No report on the collectives of all ranks, for which a failed group waits a minute.
    ("TORCH_NCCL_DUMP_ON_TIMEOUT", "0"),
    ("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "0"),
    ("TORCH_FR_BUFFER_SIZE", "0"),
    // No second watchdog, which a group joins when it ends, after eight minutes.
    ("TORCH_NCCL_ENABLE_MONITORING", "0"),
    // Switches that reduce cannot be taken over by the next group of a process.
    ("NCCL_NVLS_ENABLE", "0"),
];

/// The GPUs that CUDA shows to a process.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Sets the variables that this crate's groups rely on, where the user has not; names to NCCL the
/// network interface that it is to use, if there is one; and shows the process one GPU alone, if it
/// is to use that: an index among those that it sees, or a UUID.
///
/// # Errors
/// [`Error::NoSuchGpu`], and [`Error::Threads`]: another thread may read the environment at the
/// same time.
pub fn prepare(gpu: Option<&str>, interface: Option<&str>) -> Result<(), Error> {
    if let Some(gpu) = gpu {
        let visible = std::env::var(VISIBLE).ok();
        set(VISIBLE, &choose(gpu, visible.as_deref())?)?;
    }
    // Without `=`, NCCL takes any interface whose name begins so.
    let exact = interface.map(|name| format!("={name}"));
    let interface = exact.as_deref().map(|name| ("NCCL_SOCKET_IFNAME", name));
    for (name, value) in DEFAULTS.into_iter().chain(interface) {
        if std::env::var_os(name).is_none_or(|chosen| chosen.is_empty()) {
            set(name, value)?;
        }
    }
    Ok(())
}

/// Ends the process at once. Nothing is destroyed that a thread of it still uses: libtorch's
/// threads, and those that are stuck in a collective, have no way to end before.
pub fn exit(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { _exit(code) }
}

/// What the process was started with.
#[derive(Debug)]
pub struct Started {
    environment: Vec<(OsString, OsString)>,
    descriptors: Vec<i32>,
}

impl Started {
    /// What it has now, so that it must be called before anything is changed or opened.
    #[must_use]
    pub fn now() -> Self {
        let mut descriptors = descriptors();
        // The list was read through one that is closed again.
        descriptors.retain(|it| Path::new(DESCRIPTORS).join(it.to_string()).exists());
        Self {
            environment: std::env::vars_os().collect(),
            descriptors,
        }
    }

    /// Replaces this program by itself, started again in the same process: with the same arguments
    /// and environment, without anything that it has opened. libtorch and CUDA have no other way
    /// to begin anew. Returns only when it fails.
    #[must_use]
    pub fn restart(self) -> std::io::Error {
        for opened in descriptors() {
            if !self.descriptors.contains(&opened) {
                // SAFETY: it takes numbers, and closes nothing before the program is replaced.
                unsafe { fcntl(opened, F_SETFD, FD_CLOEXEC) };
            }
        }
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        Command::new("/proc/self/exe")
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(self.environment)
            .exec()
    }
}

/// The open descriptors of the process.
const DESCRIPTORS: &str = "/proc/self/fd";

fn descriptors() -> Vec<i32> {
    let open = std::fs::read_dir(DESCRIPTORS).into_iter().flatten();
    let number = |name: OsString| name.to_str()?.parse().ok();
    open.filter_map(|entry| number(entry.ok()?.file_name()))
        .collect()
}

/// Whether the process was given GPUs, and must not train without one.
pub fn has_gpus() -> bool {
    let visible = std::env::var(VISIBLE).unwrap_or_default();
    !visible.is_empty() && !visible.starts_with("-1")
}

/// The libtorch that the dynamic linker has loaded: a variable, a run path or an installed package
/// may have led to it.
pub fn libtorch() -> Option<PathBuf> {
    mapped(&std::fs::read_to_string("/proc/self/maps").ok()?)
}

/// The first libtorch in the list of a process's mappings, in which no column before the path has
/// a slash.
fn mapped(maps: &str) -> Option<PathBuf> {
    let files = maps
        .lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let mut libtorch = files.filter(|file| {
        file.file_name()
            .is_some_and(|name| name == "libtorch_cpu.so")
    });
    libtorch.next().map(Path::to_owned)
}

fn choose(gpu: &str, visible: Option<&str>) -> Result<String, Error> {
    let no_such_gpu = || Error::NoSuchGpu {
        gpu: gpu.to_owned(),
        visible: visible.map(str::to_owned),
    };
    if gpu.starts_with("GPU-") || gpu.starts_with("MIG-") {
        return Ok(gpu.to_owned());
    }
    let index: usize = gpu.parse().map_err(|_| no_such_gpu())?;
    let Some(list) = visible else {
        return Ok(index.to_string());
    };
    let chosen = list.split(',').map(str::trim).nth(index);
    let chosen = chosen.filter(|name| !name.is_empty());
    chosen.map(str::to_owned).ok_or_else(no_such_gpu)
}

fn set(name: &str, value: &str) -> Result<(), Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Error::Threads { threads });
    }
    // SAFETY: this is the only thread, so no other reads the environment.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

// `asm-generic/fcntl.h`.
const F_SETFD: i32 = 2;
const FD_CLOEXEC: i32 = 1;

unsafe extern "C" {
    fn _exit(code: i32) -> !;
    fn fcntl(descriptor: i32, command: i32, ...) -> i32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_one_of_those_that_the_process_sees() {
        let chosen = |gpu, visible| choose(gpu, visible).ok();
        assert_eq!(chosen("1", None).as_deref(), Some("1"));
        assert_eq!(chosen("1", Some("4, GPU-b")).as_deref(), Some("GPU-b"));
        assert_eq!(chosen("GPU-a", Some("4")).as_deref(), Some("GPU-a"));
        for (gpu, visible) in [
            ("2", Some("4,5")),
            ("0", Some("")),
            ("-1", None),
            ("a", None),
        ] {
            assert_eq!(chosen(gpu, visible), None, "{gpu} of {visible:?}");
        }
    }

    #[test]
    fn the_loaded_libtorch_is_found() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 11   /a/libtorch_cpu.so.debug\n\
                    7f01-7f02 rw-p 00000000 00:00 0    [heap]\n\
                    7f02-7f03 r--p 00000000 fe:00 12   /b c/lib/libtorch_cpu.so\n";
        assert_eq!(
            mapped(maps).as_deref(),
            Some(Path::new("/b c/lib/libtorch_cpu.so"))
        );
        assert_eq!(mapped(""), None);
        // These tests are linked against it.
        assert!(libtorch().is_some_and(|found| found.exists()));
    }

    #[test]
    fn the_environment_of_other_threads_is_left_alone() {
        // The harness of the tests has a thread beside this one.
        assert!(matches!(
            set("A", "b"),
            Err(Error::Threads { threads: 2.. })
        ));
        assert_eq!(std::env::var_os("A"), None);
    }
}
