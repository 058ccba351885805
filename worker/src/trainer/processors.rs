//! The processors that this process may use.

use std::os::unix::fs::MetadataExt;

use rustix::thread::{CpuSet, sched_getaffinity};

/// What the coordinator divides among the workers of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processors {
    /// The same for all processes of a machine, containers too.
    pub machine: String,
    /// Those in the CPU affinity of the calling thread.
    pub ids: Vec<u32>,
    /// Threads that it may run at once.
    pub threads: u32,
    /// The cgroup whose CPU quota it shares with others; empty if there is none.
    pub cgroup: String,
    /// Processors of that quota.
    pub quota: u32,
}

impl Processors {
    /// Reads what the kernel says, and `OMP_NUM_THREADS`.
    pub(super) fn of_this_process() -> Self {
        // The smaller one of the affinity and the quota.
        let allowed = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        let mut ids = affinity();
        if ids.is_empty() {
            ids.extend(0..allowed);
        }
        let limited = (allowed as usize) < ids.len();
        let chosen = std::env::var("OMP_NUM_THREADS").ok();
        Self {
            machine: machine(),
            threads: threads(allowed, chosen.as_deref()),
            cgroup: if limited { cgroup() } else { String::new() },
            quota: allowed,
            ids,
        }
    }
}

/// The kernel's boot id, which containers share whatever host name they have.
fn machine() -> String {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot_id = boot_id.map(|text| text.trim().to_owned());
    boot_id.unwrap_or_else(|_| {
        let system = rustix::system::uname();
        system.nodename().to_string_lossy().into_owned()
    })
}

/// Empty where the kernel has more processors than it can be asked for.
fn affinity() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|id| set.is_set(*id))
        .map(|id| id as u32)
        .collect()
}

/// The path of the cgroup, and the namespace in which it has that: in containers all paths are `/`.
fn cgroup() -> String {
    let namespace = std::fs::metadata("/proc/self/ns/cgroup").map_or(0, |found| found.ino());
    let path = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = path.lines().last().unwrap_or_default();
    format!("{namespace} {path}")
}

/// The first of OpenMP's list, which is for threads that start no others.
fn threads(allowed: u32, chosen: Option<&str>) -> u32 {
    let chosen = chosen.and_then(|list| list.split(',').next()?.trim().parse().ok());
    allowed.min(chosen.filter(|threads| *threads > 0).unwrap_or(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_may_choose_fewer_threads() {
        assert_eq!(threads(8, None), 8);
        assert_eq!(threads(8, Some("2")), 2);
        assert_eq!(threads(8, Some("3,1")), 3);
        assert_eq!(threads(2, Some("16")), 2);
        assert_eq!(threads(2, Some("0")), 2);
        assert_eq!(threads(2, Some("many")), 2);
    }

    #[test]
    fn the_kernel_names_machine_and_processors() {
        let found = Processors::of_this_process();
        assert_eq!(found.machine.len(), 36, "{}", found.machine);
        assert!(!found.ids.is_empty());
        assert!((1..=found.ids.len() as u32).contains(&found.threads));
        let limited = (found.quota as usize) < found.ids.len();
        assert_eq!(found.cgroup.is_empty(), !limited, "{found:?}");
    }
}
