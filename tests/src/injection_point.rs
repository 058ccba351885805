//! When to inject a fault: the phases of a run, as a test can observe them. The phase of a worker
//! is in its own log if `RUST_LOG` is [`LOGS`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Run, STEADY_EPOCHS, STEADY_STEPS};

/// The value of `RUST_LOG` with which workers log the phases of a step.
pub const LOGS: &str = "warn,worker=info,worker::trainer::activity=debug";

const POLL_INTERVAL: Duration = Duration::from_micros(300);
const TIMEOUT: Duration = Duration::from_secs(120);

/// A phase of a run with the settings of [`crate::STEADY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectionPoint {
    /// The process of the worker exists; it is about to register, or has just registered.
    Joining,
    /// The worker decodes images.
    Decoding,
    /// The worker joins the process group.
    Forming,
    /// The worker waits for the next batch.
    DataWait,
    /// The forward pass of a step.
    Forward,
    /// The backward pass of a step, which overlaps with the all-reduce.
    Backward,
    /// The optimizer of a step.
    Optimizer,
    /// The validation at the end of an epoch.
    Validation,
    /// A worker uploads a checkpoint, or the coordinator writes it.
    Checkpoint,
    /// An epoch has just been recorded.
    BetweenEpochs,
    /// The last epoch has just been recorded.
    Finishing,
}

impl InjectionPoint {
    /// All points, in the order of a run.
    pub const ALL: [Self; 11] = [
        Self::Joining,
        Self::Decoding,
        Self::Forming,
        Self::DataWait,
        Self::Forward,
        Self::Backward,
        Self::Optimizer,
        Self::Validation,
        Self::Checkpoint,
        Self::BetweenEpochs,
        Self::Finishing,
    ];

    /// The name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Decoding => "decoding",
            Self::Forming => "forming",
            Self::DataWait => "data wait",
            Self::Forward => "forward",
            Self::Backward => "backward, all-reduce",
            Self::Optimizer => "optimizer",
            Self::Validation => "validation",
            Self::Checkpoint => "checkpoint upload",
            Self::BetweenEpochs => "between epochs",
            Self::Finishing => "finishing",
        }
    }

    /// Waits until the worker with this local rank is in the phase. The number `draw` chooses the
    /// epoch and the step. `coordinator` is whether the fault is injected into the coordinator:
    /// then [`Self::Checkpoint`] is when it writes, not when the worker uploads.
    pub fn wait(self, run: &mut Run, local_rank: u32, coordinator: bool, draw: u64) {
        let log = run.path().join(format!("logs/worker-{local_rank}.log"));
        // The step is in the second or third epoch; the epoch is the first or the second.
        let step = STEADY_STEPS as u64 + 1 + draw % (2 * STEADY_STEPS as u64 - 2);
        let epoch = 1 + (draw % 2) as usize;
        let mut phase = |name: &str, occurrence: u64| {
            let mut tail = Tail::new(&log, format!("phase={name}"));
            poll(run, || tail.count() >= occurrence);
        };
        match self {
            Self::Joining => {
                poll(run, || log.exists());
                // Most of this phase is the loading of libtorch.
                std::thread::sleep(Duration::from_millis(draw % 400));
            }
            Self::Decoding => phase("Preparing", 1),
            Self::Forming => phase("Forming", 1),
            Self::DataWait => phase("DataWait", step),
            Self::Forward => phase("Forward", step),
            Self::Backward => phase("Backward", step),
            Self::Optimizer => phase("Optimizer", step),
            Self::Validation => {
                // The phase is logged once for each chunk: those before the last step of this epoch
                // are of epochs before.
                phase("Optimizer", (STEADY_STEPS * (epoch + 1) - 1) as u64);
                let mut tail = Tail::new(&log, "phase=Validation".to_owned());
                let before = tail.count();
                poll(run, || tail.count() > before);
            }
            Self::Checkpoint => {
                if coordinator {
                    // The checkpoint after the second epoch may be overtaken by the end of the run.
                    recorded(run, 1);
                    let folder = run.path().join("checkpoints");
                    poll(run, || holds_partial(&folder));
                } else {
                    recorded(run, epoch);
                    std::thread::sleep(Duration::from_millis(20 + draw % 130));
                }
            }
            Self::BetweenEpochs => recorded(run, epoch),
            Self::Finishing => {
                recorded(run, STEADY_EPOCHS);
                std::thread::sleep(Duration::from_millis(draw % 80));
            }
        }
    }
}

fn holds_partial(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(".partial-"))
    })
}

/// Waits until so many epochs are in `metrics.jsonl`.
fn recorded(run: &mut Run, epochs: usize) {
    let metrics = run.path().join("metrics.jsonl");
    poll(run, || crate::read(&metrics).lines().count() >= epochs);
}

/// Polls as often as possible without using much of a core.
fn poll(run: &mut Run, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(
            !run.has_ended(),
            "the coordinator exited before the injection point:\n{}",
            run.output()
        );
        assert!(
            Instant::now() < deadline,
            "timed out waiting for the injection point:\n{}",
            run.output()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Counts a word in a file that another process appends to.
struct Tail<'a> {
    path: &'a Path,
    word: String,
    offset: u64,
    rest: String,
    seen: u64,
}

impl<'a> Tail<'a> {
    fn new(path: &'a Path, word: String) -> Self {
        Self {
            path,
            word,
            offset: 0,
            rest: String::new(),
            seen: 0,
        }
    }

    fn count(&mut self) -> u64 {
        // The file does not exist before the worker does.
        if let Ok(mut file) = File::open(self.path)
            && file.seek(SeekFrom::Start(self.offset)).is_ok()
        {
            let mut new = Vec::new();
            self.offset += file.read_to_end(&mut new).unwrap_or(0) as u64;
            self.rest.push_str(&String::from_utf8_lossy(&new));
            let complete = self.rest.rfind('\n').map_or(0, |end| end + 1);
            self.seen += self.rest[..complete].matches(&self.word).count() as u64;
            self.rest.drain(..complete);
        }
        self.seen
    }
}

/// The steps that the workers with this local rank have made, one worker after the other.
pub(crate) fn steps_made(run_dir: &Path, local_rank: u32) -> u64 {
    let log = run_dir.join(format!("logs/worker-{local_rank}.log"));
    Tail::new(&log, "phase=Optimizer".to_owned()).count()
}

/// The phases of the two ranks, by their own logs.
pub(crate) fn phases(run_dir: &Path) -> String {
    let phase = |local_rank: u32| {
        let log = crate::read(&run_dir.join(format!("logs/worker-{local_rank}.log")));
        let last = log.rsplit_once("phase=");
        let word = last.and_then(|(_, rest)| rest.split_whitespace().next());
        word.unwrap_or("Starting").to_owned()
    };
    format!("rank 0 in {}, rank 1 in {}", phase(0), phase(1))
}
