//! The processors that this process may use.

use rustix::thread::{CpuSet, sched_getaffinity};

/// What the coordinator divides among the workers of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processors {
    /// The same for all processes of a machine, containers too; empty if unknown.
    pub machine: String,
    /// Those in the CPU affinity of the process.
    pub ids: Vec<u32>,
    /// Threads that it may run at once.
    pub threads: u32,
}

impl Processors {
    /// Reads what the kernel says, and `OMP_NUM_THREADS`.
    pub(super) fn of_this_process() -> Self {
        // Of the kernel, which containers share, whatever host name they have.
        let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let set = sched_getaffinity(None).unwrap_or_default();
        // It knows the quota of the cgroup too.
        let allowed = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        let chosen = std::env::var("OMP_NUM_THREADS").ok();
        Self {
            machine: machine.unwrap_or_default().trim().to_owned(),
            ids: (0..CpuSet::MAX_CPU as u32)
                .filter(|id| set.is_set(*id as usize))
                .collect(),
            threads: threads(allowed, chosen.as_deref()),
        }
    }
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
    }
}
