//! When to strike: moments in the life of a run, as they can be seen from outside. What a worker
//! is doing its own log says, when `RUST_LOG` asks it to.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Run, STEADY_EPOCHS, STEADY_STEPS};

/// What `RUST_LOG` has to be for the moments within a step to be seen.
pub const LOGS: &str = "warn,worker=info,worker::agent::activity=debug";

const LOOK_EVERY: Duration = Duration::from_micros(300);
const PATIENCE: Duration = Duration::from_secs(120);

/// A moment of a run with the settings of [`crate::STEADY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum InjectionPoint {
    /// The worker's process is there, and is not yet known to the coordinator, or just so.
    Joining,
    Decoding,
    Forming,
    DataWait,
    Forward,
    /// Of which the all-reduce is a part: they overlap.
    Backward,
    Optimizer,
    Validation,
    /// A worker hands over a checkpoint, or the coordinator writes it.
    Checkpoint,
    BetweenEpochs,
    /// The last epoch is judged.
    Finishing,
}

impl InjectionPoint {
    /// All of them, in the order of a run.
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

    /// In a few words.
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

    /// Returns in that moment of the worker in `local_rank`, in an epoch and at a step that `draw`, a
    /// number, decides; `written` when it is the coordinator whose checkpoint counts.
    pub fn wait(self, run: &mut Run, local_rank: u32, written: bool, draw: u64) {
        let log = run.path().join(format!("logs/worker-{local_rank}.log"));
        // In the second epoch or the third; the first or the second.
        let step = STEADY_STEPS as u64 + 1 + draw % (2 * STEADY_STEPS as u64 - 2);
        let epoch = 1 + (draw % 2) as usize;
        let mut phase = |name: &str, occurrence: u64| {
            let mut tail = Tail::new(&log, format!("\"PHASE_{name}\""));
            look(run, || tail.count() >= occurrence);
        };
        match self {
            Self::Joining => {
                look(run, || log.exists());
                // The loading of its libraries is the longest part of it.
                std::thread::sleep(Duration::from_millis(draw % 400));
            }
            Self::Decoding => phase("PREPARING", 1),
            Self::Forming => phase("FORMING", 1),
            Self::DataWait => phase("DATA_WAIT", step),
            Self::Forward => phase("FORWARD", step),
            Self::Backward => phase("BACKWARD", step),
            Self::Optimizer => phase("OPTIMIZER", step),
            Self::Validation => {
                // It is entered once more for each chunk.
                phase("OPTIMIZER", (STEADY_STEPS * (epoch + 1)) as u64);
                let mut tail = Tail::new(&log, "\"PHASE_VALIDATION\"".to_owned());
                let before = tail.count();
                look(run, || tail.count() > before);
            }
            Self::Checkpoint => {
                let folder = run.path().join("checkpoints");
                judged(run, epoch);
                if written {
                    look(run, || holds_partial(&folder));
                } else {
                    std::thread::sleep(Duration::from_millis(20 + draw % 130));
                }
            }
            Self::BetweenEpochs => judged(run, epoch),
            Self::Finishing => {
                judged(run, STEADY_EPOCHS);
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

/// Returns as soon as so many epochs are on record.
fn judged(run: &mut Run, epochs: usize) {
    let metrics = run.path().join("metrics.jsonl");
    look(run, || crate::read(&metrics).lines().count() >= epochs);
}

/// Looks as often as it can without taking much of a processor.
fn look(run: &mut Run, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(!run.has_ended(), "ended too early:\n{}", run.output());
        assert!(Instant::now() < deadline, "too late:\n{}", run.output());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How often a word stands in a growing file, read piece by piece.
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
        // There is no log before there is a worker.
        if let Ok(mut file) = File::open(self.path)
            && file.seek(SeekFrom::Start(self.offset)).is_ok()
        {
            let mut new = Vec::new();
            self.offset += file.read_to_end(&mut new).unwrap_or(0) as u64;
            self.rest.push_str(&String::from_utf8_lossy(&new));
            let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
            self.seen += self.rest[..whole].matches(&self.word).count() as u64;
            self.rest.drain(..whole);
        }
        self.seen
    }
}

/// How often the worker in `local_rank`, or one before it in its place, has made a step.
pub(crate) fn steps_made(run_dir: &Path, local_rank: u32) -> u64 {
    let log = run_dir.join(format!("logs/worker-{local_rank}.log"));
    Tail::new(&log, "\"PHASE_OPTIMIZER\"".to_owned()).count()
}

/// Where the two ranks are by their own logs, in words.
pub(crate) fn phases(run_dir: &Path) -> String {
    let phase = |local_rank: u32| {
        let log = crate::read(&run_dir.join(format!("logs/worker-{local_rank}.log")));
        let last = log.rsplit_once("\"PHASE_");
        let word = last.and_then(|(_, rest)| rest.split('"').next());
        let word = word.unwrap_or("starting").to_lowercase().replace('_', " ");
        // Between two things it waits for the coordinator.
        word.replace("unspecified", "idle")
    };
    format!("rank 0 in {}, rank 1 in {}", phase(0), phase(1))
}
