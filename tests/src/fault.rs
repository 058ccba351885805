//! One fault injected into one run, and how the run recovered from it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::baseline::{Agreement, Baseline};
use crate::injection_point::{InjectionPoint, LOGS, phases, steps_made};
use crate::{
    Ended, Run, SMALL, STEADY, STEADY_EPOCHS, STEADY_STEPS, journal, kill, metrics, pause, unpause,
};

/// Longer than any run.
const UNTIL_THE_END: Duration = Duration::from_secs(3600);

/// The processes that a fault is injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The worker with local rank 0.
    RankZero,
    /// The worker with local rank 1.
    RankOne,
    /// The coordinator.
    Coordinator,
    /// The coordinator and both workers.
    All,
}

/// What is done to the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this time.
    Pause(Duration),
}

/// A fault in a run with the settings of [`STEADY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// The processes.
    pub target: Target,
    /// When.
    pub point: InjectionPoint,
    /// What is done to them.
    pub fault: Fault,
}

/// How a run recovered from a fault.
#[derive(Debug)]
pub struct Outcome {
    /// The phases of the ranks at the fault, by their own logs, and the lines of the coordinator
    /// about losses and recoveries.
    pub observed: String,
    /// Whether the result is that of the run without faults.
    pub result: Result<Agreement, String>,
    /// From the fault to the first step of the next generation; none if there was no next one.
    pub seconds: Option<f64>,
    /// Steps that were made more than once.
    pub steps_lost: u64,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 4] = [Self::RankZero, Self::RankOne, Self::Coordinator, Self::All];

    /// The name in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::RankZero => "rank 0",
            Self::RankOne => "rank 1",
            Self::Coordinator => "coordinator",
            Self::All => "all",
        }
    }

    /// The process ids. Workers that are just being started are waited for.
    pub fn pids(self, run: &Run) -> Vec<u32> {
        let local_ranks: &[u32] = match self {
            Self::RankZero => &[0],
            Self::RankOne => &[1],
            Self::Coordinator => &[],
            Self::All => &[0, 1],
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let mut workers = run.processes();
            workers.retain(|worker| {
                let local_rank = worker.local_rank;
                local_rank.is_some_and(|local_rank| local_ranks.contains(&local_rank))
            });
            if workers.len() >= local_ranks.len() || Instant::now() > deadline {
                let coordinator = self.includes_coordinator().then(|| run.pid());
                let workers = workers.iter().map(|worker| worker.pid);
                return coordinator.into_iter().chain(workers).collect();
            }
        }
    }

    /// Whether the coordinator is one of the processes.
    pub fn includes_coordinator(self) -> bool {
        matches!(self, Self::Coordinator | Self::All)
    }
}

impl Fault {
    /// The name in tables and messages.
    pub fn name(self) -> String {
        match self {
            Self::Kill => "SIGKILL".to_owned(),
            Self::Pause(time) => format!("SIGSTOP for {} s", time.as_secs_f64()),
        }
    }

    /// Injects the fault into these processes. After a pause they run again.
    pub fn inject(self, pids: &[u32]) {
        match self {
            Self::Kill => pids.iter().copied().for_each(kill),
            Self::Pause(time) => {
                pids.iter().copied().for_each(pause);
                std::thread::sleep(time);
                pids.iter().copied().for_each(unpause);
            }
        }
    }
}

impl Injection {
    /// The name in tables and messages.
    pub fn name(&self) -> String {
        let (target, point) = (self.target.name(), self.point.name());
        format!("{target}, {point}, {}", self.fault.name())
    }

    /// Starts a run, injects the fault and compares the result with `baseline`. The number `draw`
    /// chooses the step.
    pub fn run(self, baseline: &Baseline, draw: u64) -> Outcome {
        let arguments = [&["--workers=2"], SMALL, STEADY].concat();
        let mut run = Run::start_with(&arguments, |command| {
            command.env("RUST_LOG", LOGS);
        });
        let local_rank = u32::from(self.target != Target::RankZero);
        let coordinator = self.target.includes_coordinator();
        self.point.wait(&mut run, local_rank, coordinator, draw);
        let pids = self.target.pids(&run);
        let (injected, phases) = (now(), phases(&run.path()));
        let known = recoveries(&run.path()).len();
        self.fault.inject(&pids);
        let (ended, first) = if self.fault == Fault::Kill && coordinator {
            resumed(run, injected)
        } else {
            let first = first_step_after_recovery(&mut run, UNTIL_THE_END, injected, known);
            (run.wait(), first)
        };
        let ended = ended.left_no_process();
        let path = ended.path();
        let mut observed = vec![phases];
        observed.extend(lines(&path, &ended.output));
        let result = match ended.has_finished() {
            true => baseline.compare(&path),
            false => Err(format!("exit code {}: {}", ended.code, ended.output)),
        };
        let all = (STEADY_EPOCHS * STEADY_STEPS) as u64;
        let made = [0, 1].map(|local_rank| steps_made(&path, local_rank));
        Outcome {
            observed: observed.join("; "),
            result,
            seconds: first.map(|at| at - injected),
            steps_lost: made.into_iter().max().unwrap_or(0).saturating_sub(all),
        }
    }
}

/// Resumes a run whose coordinator was killed, unless it was completed; how it ended, and when the
/// first step after the fault was made.
fn resumed(run: Run, injected: f64) -> (Ended, Option<f64>) {
    let killed = run.wait();
    if killed.has_finished() {
        return (killed, None);
    }
    let lines = lines(&killed.path(), &killed.output);
    let mut run = killed.resume_with(&[], |command| {
        command.env("RUST_LOG", LOGS);
    });
    let first = first_step(&mut run, UNTIL_THE_END, |_| Some(injected));
    let mut ended = run.wait();
    ended.output.insert_str(0, &lines.join("\n"));
    (ended, first)
}

/// The time of the first step later than `since`, which is asked until it gives a time; none if
/// the run ends or the limit is reached without one.
pub fn first_step(
    run: &mut Run,
    limit: Duration,
    since: impl Fn(&Run) -> Option<f64>,
) -> Option<f64> {
    let deadline = Instant::now() + limit;
    let mut address = None;
    while !run.has_ended() && Instant::now() < deadline {
        if address.is_none() {
            address = run.metrics_address();
        }
        if let (Some(address), Some(since)) = (&address, since(run))
            && let Ok(scraped) = metrics::get(address, "/metrics")
            && let Some(at) = metrics::value(&scraped, "finetune_last_step_timestamp_seconds")
            && at > since
        {
            return Some(at);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    None
}

/// The time of the first step of the generation that follows a fault at `injected`, before which
/// there were `known` recoveries.
///
/// The coordinator measures a recovery from the moment when it notices a loss, and no step of the
/// broken generation counts after that.
pub fn first_step_after_recovery(
    run: &mut Run,
    limit: Duration,
    injected: f64,
    known: usize,
) -> Option<f64> {
    first_step(run, limit, |run| {
        let recovered = recoveries(&run.path());
        let seconds = recovered.get(known)?["seconds"].as_f64()?;
        Some(injected + seconds)
    })
}

/// The time of day, in seconds since 1970.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The entries of the journal about recoveries.
pub fn recoveries(run_dir: &Path) -> Vec<Value> {
    let mut entries = journal(run_dir);
    entries.retain(|entry| entry["event"] == "recovered");
    entries
}

/// The steps that were lost in all recoveries but the first `known` ones.
pub fn steps_lost(run_dir: &Path, known: usize) -> u64 {
    let recovered = recoveries(run_dir);
    let lost = recovered.iter().skip(known);
    lost.filter_map(|entry| entry["steps_lost"].as_u64()).sum()
}

/// The lines of the coordinator about losses, stalls and the state that a run continued from.
fn lines(run_dir: &Path, output: &str) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let journal = journal(run_dir).into_iter();
    let journal = journal.filter_map(|entry| match entry["event"].as_str()? {
        "lost" => {
            let (who, when) = (text(&entry, "who"), text(&entry, "when"));
            Some(format!("lost {who} {when}"))
        }
        "stalled" => Some(text(&entry, "line")),
        "corrupt_checkpoint" => Some(text(&entry, "reason")),
        _ => None,
    });
    let output = output.lines().filter(|line| {
        line.starts_with("rolled back")
            || line.starts_with("resuming")
            || line.starts_with("group:")
    });
    let mut lines: Vec<String> = journal.chain(output.map(str::to_owned)).collect();
    lines.dedup();
    lines
}
