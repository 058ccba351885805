//! Whether the decoded set fits in memory: the need, what the machine and its cgroup have
//! left, and the rule. It allocates nothing.

use std::fs;

/// Bytes that a cache of so many `size`×`size` RGB images takes.
#[must_use]
pub fn bytes_needed(images: usize, size: i64) -> u64 {
    images as u64 * size.unsigned_abs().pow(2) * 3
}

/// Bytes that this process may still take without swapping: the kernel's `MemAvailable`,
/// or what the cgroup's limit leaves where that is less. `None` where neither can be read.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_available(&text));
    let cgroup = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let limited = cgroup_available(
        cgroup("memory.max").as_deref(),
        cgroup("memory.current").as_deref(),
        cgroup("memory.stat").as_deref(),
    );
    match (machine, limited) {
        (Some(machine), Some(limited)) => Some(machine.min(limited)),
        (machine, limited) => machine.or(limited),
    }
}

/// Whether a cache of `needed` bytes leaves training room in `available`: it may take half.
#[must_use]
pub fn fits_in_memory(needed: u64, available: u64) -> bool {
    needed <= available / 2
}

/// proc(5): `MemAvailable:   24117248 kB`.
fn meminfo_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// What is left under a cgroup v2 limit. Pages of files that were not used lately count as
/// current, but the kernel reclaims them when needed. "max" means no limit.
fn cgroup_available(max: Option<&str>, current: Option<&str>, stat: Option<&str>) -> Option<u64> {
    let max: u64 = max?.trim().parse().ok()?;
    let current: u64 = current?.trim().parse().ok()?;
    let droppable: u64 = stat
        .and_then(|stat| {
            stat.lines()
                .find_map(|line| line.strip_prefix("inactive_file "))
        })
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_formats() {
        let meminfo = "MemTotal:  100 kB\nMemFree:   7 kB\nMemAvailable:    12 kB\n";
        assert_eq!(meminfo_available(meminfo), Some(12 * 1024));
        assert_eq!(meminfo_available("MemTotal: 100 kB\n"), None);

        let stat = "anon 5\ninactive_file 300\nactive_file 9\n";
        assert_eq!(
            cgroup_available(Some("1000\n"), Some("800\n"), Some(stat)),
            Some(500)
        );
        assert_eq!(
            cgroup_available(Some("1000\n"), Some("1200\n"), None),
            Some(0)
        );
        assert_eq!(
            cgroup_available(Some("max\n"), Some("800\n"), Some(stat)),
            None
        );
    }

    #[test]
    fn caltech101_at_224_pixels_needs_1_4_gb_and_half_the_memory_is_the_limit() {
        let needed = bytes_needed(9144, 224);
        assert_eq!(needed, 1_376_428_032);
        assert!(fits_in_memory(needed, 2 * needed));
        assert!(!fits_in_memory(needed, 2 * needed - 1));
    }
}
