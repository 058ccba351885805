//! Counts the GPUs of this machine without libtorch, and assigns one to each worker.

use std::path::Path;
use std::process::{Command, Stdio};

use super::LaunchError;
use super::error::are_visible;
use crate::config::Device;

/// The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus(Vec<String>);

/// Where the workers of a run compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// All on the CPU.
    Cpu,
    /// Each on a GPU of its own; the position is the local rank.
    Cuda(Vec<String>),
}

impl Gpus {
    /// Those in `CUDA_VISIBLE_DEVICES`; where it is not set, those of the driver.
    #[must_use]
    pub fn detect() -> Self {
        if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
            return Self::from_visible(&visible);
        }
        let count = count_in_proc(Path::new("/proc/driver/nvidia/gpus"))
            .or_else(count_by_nvidia_smi)
            .unwrap_or(0);
        Self((0..count).map(|index| index.to_string()).collect())
    }

    /// Reads `CUDA_VISIBLE_DEVICES`: indices or UUIDs; as in CUDA, the list ends at the first
    /// invalid one, for which -1 is customary.
    fn from_visible(list: &str) -> Self {
        let names = list.split(',').map(str::trim);
        Self(
            names
                .take_while(|name| !name.is_empty() && *name != "-1")
                .map(str::to_owned)
                .collect(),
        )
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decides where `workers` compute. With `auto` and too few GPUs for all it is the CPU,
    /// since collectives need ranks on devices of one kind; the second value is a note for the
    /// user. With no local worker it is the CPU: no GPU of this machine is needed.
    ///
    /// # Errors
    /// [`LaunchError::TooFewGpus`] where GPUs were demanded.
    pub fn place(
        &self,
        device: Device,
        workers: usize,
    ) -> Result<(Placement, Option<String>), LaunchError> {
        let enough = self.len() >= workers && !self.is_empty();
        match device {
            _ if workers == 0 => Ok((Placement::Cpu, None)),
            Device::Cpu => Ok((Placement::Cpu, None)),
            Device::Cuda | Device::Auto if enough => {
                Ok((Placement::Cuda(self.0[..workers].to_vec()), None))
            }
            Device::Cuda => Err(LaunchError::TooFewGpus {
                workers,
                gpus: self.len(),
            }),
            Device::Auto => {
                let note = (!self.is_empty()).then(|| {
                    format!(
                        "device: the CPU, as {workers} workers need {workers} GPUs and {} visible; \
                         --workers {} uses GPUs",
                        are_visible(self.len()),
                        self.len()
                    )
                });
                Ok((Placement::Cpu, note))
            }
        }
    }
}

impl Placement {
    /// `CUDA_VISIBLE_DEVICES` of the worker with this local rank; empty hides every GPU.
    pub(super) fn visible_to(&self, local_rank: u32) -> &str {
        match self {
            Self::Cpu => "",
            Self::Cuda(names) => names.get(local_rank as usize).map_or("", String::as_str),
        }
    }
}

fn count_in_proc(folder: &Path) -> Option<usize> {
    let count = std::fs::read_dir(folder).ok()?.count();
    (count > 0).then_some(count)
}

/// Some containers hide the driver's folder but have the tool.
fn count_by_nvidia_smi() -> Option<usize> {
    let listed = Command::new("nvidia-smi")
        .arg("-L")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let listed = listed.ok().filter(|output| output.status.success())?;
    Some(count_listed(&String::from_utf8_lossy(&listed.stdout)))
}

/// `nvidia-smi -L` begins the line of each GPU with `GPU `; MIG slices are indented below.
fn count_listed(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("GPU ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_as_cuda_does() {
        let names = |list: &str| Gpus::from_visible(list).0;
        assert_eq!(names("2, GPU-abc"), ["2", "GPU-abc"]);
        assert!(names("").is_empty() && names("-1").is_empty());
        assert_eq!(names("0,-1,1"), ["0"]);
        assert_eq!(
            count_listed("GPU 0: H100 (UUID: GPU-1)\n  MIG 1g\nGPU 1: H100\n"),
            2
        );
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(count_in_proc(folder.path()), None);
        std::fs::create_dir(folder.path().join("0000:01:00.0")).unwrap();
        assert_eq!(count_in_proc(folder.path()), Some(1));
    }

    #[test]
    fn each_worker_gets_a_gpu_or_none_does() {
        let two = Gpus::from_visible("5,7");
        let (placement, note) = two.place(Device::Auto, 2).unwrap();
        assert_eq!(
            (placement.visible_to(0), placement.visible_to(1), note),
            ("5", "7", None)
        );
        let (placement, note) = two.place(Device::Auto, 3).unwrap();
        assert_eq!(placement, Placement::Cpu);
        assert!(note.unwrap().contains("3 GPUs and 2 are visible"));
        assert_eq!(
            Gpus::from_visible("").place(Device::Auto, 1).unwrap(),
            (Placement::Cpu, None)
        );
        assert_eq!(two.place(Device::Cpu, 1).unwrap().0, Placement::Cpu);
        let none = Gpus::from_visible("");
        assert_eq!(none.place(Device::Cuda, 0).unwrap().0, Placement::Cpu);
        let refused = two.place(Device::Cuda, 3).unwrap_err().to_string();
        assert!(
            refused.contains("3 workers need 3 GPUs but 2 are visible"),
            "{refused}"
        );
    }
}
