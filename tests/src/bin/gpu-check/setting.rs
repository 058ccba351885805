//! What the rows run on.

use std::path::PathBuf;
use std::process::Command;

use integration_tests::Run;
use integration_tests::fake_gpu::FakeGpu;

/// The machine, or the fake in its place.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Over the fake GPU, where no row can pass.
    pub(crate) dry: bool,
    /// GPUs that a run can use.
    pub(crate) gpus: usize,
    pub(crate) results: PathBuf,
}

/// Why a row could not be judged here: what it waits for.
#[derive(Debug)]
pub(crate) struct Waits(pub(crate) String);

impl Waits {
    pub(crate) fn for_(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Setting {
    pub(crate) fn new() -> Self {
        let dry = variable("DRY").is_some();
        let results = variable("RESULTS").unwrap_or_else(|| "target/gpu-check".to_owned());
        Self {
            dry,
            gpus: if dry { 8 } else { listed() },
            results: results.into(),
        }
    }

    /// The fake GPU of a dry run; none where the real one is used.
    pub(crate) fn fake(&self) -> Result<Option<FakeGpu>, Waits> {
        match self.dry {
            true => FakeGpu::new().map(Some).ok_or_else(no_fake),
            false => Ok(None),
        }
    }

    /// A GPU that ranks share and that can be broken: a real one, or the fake.
    pub(crate) fn shared(&self) -> Result<FakeGpu, Waits> {
        let made = match self.dry {
            true => FakeGpu::with_nccl_of_a_real_one(),
            false => FakeGpu::real_with_fake_nccl(),
        };
        made.ok_or_else(no_fake)
    }

    /// A run with these arguments, on the GPUs that are `visible` of `fake`, or on the real ones.
    pub(crate) fn run(&self, fake: Option<&FakeGpu>, visible: &str, arguments: &[&str]) -> Run {
        Run::start_with(arguments, |command| prepare(fake, visible, command))
    }

    /// The first where the GPU is real, else the second.
    pub(crate) fn pick<T>(&self, real: T, dry: T) -> T {
        if self.dry { dry } else { real }
    }
}

fn no_fake() -> Waits {
    Waits::for_("the headers of CUDA and NCCL, for the libraries of tests/fakegpu")
}

/// Lets a command run over the fake, if there is one.
pub(crate) fn prepare(fake: Option<&FakeGpu>, visible: &str, command: &mut Command) {
    if let Some(fake) = fake {
        fake.prepare(command, visible);
    }
}

/// The GPUs of this machine, as the coordinator counts them.
fn listed() -> usize {
    let folder = std::fs::read_dir("/proc/driver/nvidia/gpus").map(Iterator::count);
    folder.ok().filter(|count| *count > 0).unwrap_or_else(|| {
        let listed = Command::new("nvidia-smi").arg("-L").output();
        let text = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned());
        let text = text.unwrap_or_default();
        text.lines().filter(|line| line.starts_with("GPU ")).count()
    })
}

/// The value of a variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
