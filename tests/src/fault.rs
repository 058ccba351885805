//! One blow to one run, and what became of it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::baseline::{Agreement, Baseline};
use crate::injection_point::{InjectionPoint, LOGS, phases, steps_made};
use crate::{
    Run, SMALL, STEADY, STEADY_EPOCHS, STEADY_STEPS, go_on, journal, kill, metrics, pause,
};

/// Until the run ends.
const FOREVER: Duration = Duration::from_secs(3600);

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Target {
    RankZero,
    RankOne,
    Coordinator,
    /// The coordinator and both workers.
    All,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Fault {
    Kill,
    /// SIGSTOP, and so much later SIGCONT.
    Pause(Duration),
}

/// A blow to one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Injection {
    pub target: Target,
    pub point: InjectionPoint,
    pub fault: Fault,
}

/// How a run took it.
#[derive(Debug)]
pub struct Outcome {
    /// Where the ranks were by their own logs, and the coordinator's own lines.
    pub seen: String,
    /// Whether the result is the undisturbed run's.
    pub result: Result<Agreement, String>,
    /// From the blow to the first step of the next generation; none if there was no next one.
    pub seconds: Option<f64>,
    /// Steps that were made once more.
    pub steps_lost: u64,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RankZero, Self::RankOne, Self::Coordinator, Self::All];

    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::RankZero => "rank 0",
            Self::RankOne => "rank 1",
            Self::Coordinator => "coordinator",
            Self::All => "all",
        }
    }

    /// The processes, which are waited for if they are just starting.
    pub fn pids(self, run: &Run) -> Vec<u32> {
        let slots: &[u32] = match self {
            Self::RankZero => &[0],
            Self::RankOne => &[1],
            Self::Coordinator => &[],
            Self::All => &[0, 1],
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let found = run.processes();
            let found: Vec<u32> = (found.iter())
                .filter(|worker| {
                    worker
                        .local_rank
                        .is_some_and(|local_rank| slots.contains(&local_rank))
                })
                .map(|worker| worker.pid)
                .collect();
            if found.len() >= slots.len() || Instant::now() > deadline {
                let coordinator = self.strikes_coordinator().then(|| run.pid());
                return coordinator.into_iter().chain(found).collect();
            }
        }
    }

    /// Whether the coordinator is one of them.
    pub fn strikes_coordinator(self) -> bool {
        matches!(self, Self::Coordinator | Self::All)
    }
}

impl Fault {
    /// In a few words.
    pub fn name(self) -> String {
        match self {
            Self::Kill => "SIGKILL".to_owned(),
            Self::Pause(time) => format!("SIGSTOP for {} s", time.as_secs_f64()),
        }
    }

    /// Strikes; after a pause the processes go on.
    pub fn strike(self, pids: &[u32]) {
        match self {
            Self::Kill => pids.iter().copied().for_each(kill),
            Self::Pause(time) => {
                pids.iter().copied().for_each(pause);
                std::thread::sleep(time);
                pids.iter().copied().for_each(go_on);
            }
        }
    }
}

impl Injection {
    /// In a few words.
    pub fn name(&self) -> String {
        let (target, point) = (self.target.name(), self.point.name());
        format!("{target}, {point}, {}", self.fault.name())
    }

    /// Strikes a run with the settings of [`STEADY`] and compares it with `baseline`. `draw`, a
    /// number, decides at which step.
    pub fn inflict(self, baseline: &Baseline, draw: u64) -> Outcome {
        let arguments = [&["--workers=2"], SMALL, STEADY].concat();
        let mut run = Run::start_with(&arguments, |command| {
            command.env("RUST_LOG", LOGS);
        });
        let local_rank = u32::from(self.target != Target::RankZero);
        let written = self.target.strikes_coordinator();
        self.point.wait(&mut run, local_rank, written, draw);
        let pids = self.target.pids(&run);
        let (struck, places) = (now(), phases(&run.path()));
        let known = recoveries(&run.path()).len();
        self.fault.strike(&pids);
        let (ended, seconds) = if self.fault == Fault::Kill && written {
            let killed = run.wait();
            let lines = lines(&killed.path(), &killed.output);
            if killed.has_finished() {
                // Killed as it had done everything.
                (killed, None)
            } else {
                let mut run = killed.resume_with(&[], |command| {
                    command.env("RUST_LOG", LOGS);
                });
                let first = first_step(&mut run, FOREVER, |_| Some(struck));
                let mut ended = run.wait();
                ended.output.insert_str(0, &lines.join("\n"));
                (ended, first.map(|at| at - struck))
            }
        } else {
            let first = first_step_after_recovery(&mut run, FOREVER, struck, known);
            (run.wait(), first.map(|at| at - struck))
        };
        let ended = ended.left_no_process();
        let path = ended.path();
        let mut seen = vec![places];
        seen.extend(lines(&path, &ended.output));
        let result = match ended.has_finished() {
            true => baseline.compare(&path),
            false => Err(format!("exit code {}: {}", ended.code, ended.output)),
        };
        let all = (STEADY_EPOCHS * STEADY_STEPS) as u64;
        let made = [0, 1].map(|local_rank| steps_made(&path, local_rank));
        Outcome {
            seen: seen.join("; "),
            result,
            seconds,
            steps_lost: made.into_iter().max().unwrap_or(0).saturating_sub(all),
        }
    }
}

/// The time of the first step after what `since` knows, once it does; none if the run ends, or
/// the time is over, without.
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

/// The time of the first step of the generation that follows on a blow at `struck`, when there
/// were `known` recoveries by then.
///
/// No step of the broken generation counts after its loss was noticed, and the coordinator
/// counts the seconds of a recovery from there.
pub fn first_step_after_recovery(
    run: &mut Run,
    limit: Duration,
    struck: f64,
    known: usize,
) -> Option<f64> {
    first_step(run, limit, |run| {
        let recovered = recoveries(&run.path());
        let seconds = recovered.get(known)?["seconds"].as_f64()?;
        Some(struck + seconds)
    })
}

/// The time of day, in seconds.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The journal's entries about recoveries.
pub fn recoveries(run_dir: &Path) -> Vec<Value> {
    let mut entries = journal(run_dir);
    entries.retain(|entry| entry["event"] == "recovered");
    entries
}

/// What the coordinator said about losses, stalls and what it went on from.
fn lines(run_dir: &Path, output: &str) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let journal = journal(run_dir).into_iter();
    let journal = journal.filter_map(|entry| match entry["event"].as_str()? {
        "lost" => Some(format!(
            "lost {} {}",
            text(&entry, "who"),
            text(&entry, "when")
        )),
        "stalled" => Some(text(&entry, "line")),
        "torn_checkpoint" => Some(text(&entry, "reason")),
        _ => None,
    });
    let output = output.lines().filter(|line| {
        line.starts_with("nobody holds")
            || line.starts_with("resuming")
            || line.starts_with("group:")
    });
    let mut lines: Vec<String> = journal.chain(output.map(str::to_owned)).collect();
    lines.dedup();
    lines
}
