//! Warnings about this machine before training starts. It only checks and warns; a requirement that
//! is missing is an error where it is needed.

use std::path::Path;

/// NCCL's ranks of one machine share buffers there; docker's default of 64 MiB is too small.
const SHM_NEEDED: u64 = 512 << 20;
/// The oldest driver for CUDA 13: its release notes, table of driver versions.
const DRIVER_NEEDED: u32 = 580;
/// The clock skew, in seconds, that certificates and the order of logs tolerate.
const CLOCK_TOLERANCE: f64 = 5.0;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// Whether a GPU is to compute: asked for, or there.
    pub(crate) gpu: bool,
    /// Bytes of `/dev/shm`.
    pub(crate) shared_memory: Option<u64>,
    /// Major version of NVIDIA's kernel driver.
    pub(crate) driver: Option<u32>,
    /// Seconds that the clock here is ahead of the coordinator's.
    pub(crate) clock_ahead: f64,
}

impl Facts {
    /// Inspects this machine. `device` is `auto`, `cpu` or `cuda`.
    pub(crate) fn gather(device: &str, clock_ahead: f64) -> Self {
        let driver = std::fs::read_to_string("/proc/driver/nvidia/version")
            .ok()
            .and_then(|text| driver_version(&text));
        let shared_memory = rustix::fs::statvfs("/dev/shm")
            .ok()
            .map(|found| found.f_blocks.saturating_mul(found.f_frsize));
        let there = driver.is_some() || Path::new("/dev/nvidiactl").exists();
        Self {
            gpu: device == "cuda" || device == "auto" && there,
            shared_memory,
            driver,
            clock_ahead,
        }
    }

    /// One line for each problem, with a remedy.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.gpu {
            match self.driver {
                None => lines.push(
                    "there is no NVIDIA driver here (/proc/driver/nvidia/version is missing): \
                     install it, and start containers with --gpus all (docker) or a limit of \
                     nvidia.com/gpu (Kubernetes)"
                        .to_owned(),
                ),
                Some(version) if version < DRIVER_NEEDED => lines.push(format!(
                    "the NVIDIA driver is {version}, and CUDA 13 needs {DRIVER_NEEDED} or newer"
                )),
                Some(_) => {}
            }
            match self.shared_memory {
                Some(bytes) if bytes < SHM_NEEDED => lines.push(format!(
                    "/dev/shm has {} MiB, too few for NCCL between GPUs of one machine: docker's \
                     --shm-size=1g, or an emptyDir with medium Memory there (Kubernetes)",
                    bytes >> 20
                )),
                _ => {}
            }
        }
        if self.clock_ahead.abs() > CLOCK_TOLERANCE {
            let seconds = self.clock_ahead.abs();
            let side = if self.clock_ahead > 0.0 {
                "ahead of"
            } else {
                "behind"
            };
            lines.push(format!(
                "the clock is {seconds:.0} s {side} the coordinator's: certificates may seem \
                 invalid, and logs out of order; let NTP set it"
            ));
        }
        lines
    }
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …`
fn driver_version(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("NVRM"))?;
    line.split_whitespace()
        .filter(|word| word.contains('.'))
        .find_map(|word| word.split('.').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Facts {
        Facts {
            gpu: true,
            shared_memory: Some(1 << 30),
            driver: Some(580),
            clock_ahead: 0.2,
        }
    }

    #[test]
    fn each_fault_has_a_line_of_its_own() {
        assert_eq!(sound().warnings(), Vec::<String>::new());
        let small = Some(64 << 20);
        let faults = [
            (
                Facts {
                    shared_memory: small,
                    ..sound()
                },
                "/dev/shm has 64 MiB",
            ),
            (
                Facts {
                    driver: None,
                    ..sound()
                },
                "no NVIDIA driver",
            ),
            (
                Facts {
                    driver: Some(535),
                    ..sound()
                },
                "driver is 535",
            ),
            (
                Facts {
                    clock_ahead: -37.4,
                    ..sound()
                },
                "37 s behind the coordinator's",
            ),
        ];
        for (facts, words) in faults {
            let lines = facts.warnings();
            assert!(lines.len() == 1 && lines[0].contains(words), "{lines:?}");
        }
        let mut cpu = sound();
        (cpu.gpu, cpu.driver, cpu.shared_memory) = (false, None, Some(1));
        assert_eq!(
            cpu.warnings(),
            Vec::<String>::new(),
            "a CPU needs none of it"
        );
    }

    #[test]
    fn the_drivers_version_is_read_from_either_kernel_module() {
        for (text, version) in [
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.2.0",
                Some(580),
            ),
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n",
                Some(535),
            ),
            ("", None),
        ] {
            assert_eq!(driver_version(text), version, "{text}");
        }
    }
}
