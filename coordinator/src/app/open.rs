//! A run begins: a fresh one in a fresh directory, or the one that a directory remembers.

use std::net::SocketAddr;
use std::path::Path;

use crate::app::exit::Failure;
use crate::app::spec;
use crate::config::RunConfig;
use crate::store::{CONFIG, Checkpoints, Journal, JournalEntry, RunStore};
use coordinator_core::Run;
use coordinator_core::event::{FinishedEpoch, Position};
use coordinator_core::run::Resumed;

/// Everything of a run that exists before its first worker.
#[derive(Debug)]
pub struct OpenedRun {
    /// Its directory.
    pub store: RunStore,
    /// What happened to it.
    pub journal: Journal,
    /// Its checkpoints.
    pub checkpoints: Checkpoints,
    /// Its state.
    pub run: Run,
    /// By which workers that hold a state recognise it.
    pub run_id: String,
    /// What a former coordinator left.
    pub past: Option<RunHistory>,
}

/// What a former coordinator left of a run.
#[derive(Debug)]
pub struct RunHistory {
    /// Where its workers look for it.
    pub address: Option<SocketAddr>,
    /// The judged epochs.
    pub epochs: Vec<FinishedEpoch>,
    /// Checkpoints that are of no use, and why.
    pub corrupt: Vec<String>,
    /// The newest one that is.
    pub checkpoint: Option<Position>,
}

/// Makes the directory of a fresh run.
///
/// # Errors
/// The directory cannot be made, or holds something.
pub fn create(config: &RunConfig) -> Result<OpenedRun, Failure> {
    let store = RunStore::create(&config.run_dir)?;
    store.write_config(&config.to_toml()?)?;
    let mut journal = Journal::open(store.root())?;
    let run_id = random_name().map_err(Failure::internal)?;
    journal.append(&JournalEntry::Started {
        run_id: run_id.clone(),
        workers: config.workers,
    })?;
    Ok(OpenedRun {
        checkpoints: Checkpoints::open(store.root()),
        run: Run::new(spec::recipe(config)),
        store,
        journal,
        run_id,
        past: None,
    })
}

/// Why the run in a directory has ended, if it has, so that nothing is left to resume.
///
/// # Errors
/// It belongs to a live coordinator, or its journal cannot be read.
pub fn ended(directory: &Path) -> Result<Option<String>, Failure> {
    if !directory.join(CONFIG).is_file() {
        return Ok(None);
    }
    let _store = RunStore::open(directory)?;
    Ok(reason_of_end(&Journal::open(directory)?.entries()?))
}

fn reason_of_end(entries: &[(String, JournalEntry)]) -> Option<String> {
    entries.iter().find_map(|(_, entry)| match entry {
        JournalEntry::Ended { reason, ok: true } if reason != "interrupted" => Some(reason.clone()),
        _ => None,
    })
}

/// Takes over the directory of a run that was stopped, or whose coordinator died.
///
/// # Errors
/// It is no run directory, belongs to a live coordinator, is damaged, or the run has ended.
pub fn resume(config: &RunConfig) -> Result<OpenedRun, Failure> {
    let mut store = RunStore::open(&config.run_dir)?;
    let mut journal = Journal::open(store.root())?;
    let mut run_id = None;
    let mut generation = 0;
    let entries = journal.entries()?;
    if let Some(reason) = reason_of_end(&entries) {
        return Err(Failure::usage(format!(
            "the run in {} has ended ({reason}); there is nothing to resume",
            store.root().display()
        )));
    }
    for (_, entry) in entries {
        match entry {
            JournalEntry::Started { run_id: id, .. } => run_id = Some(id),
            JournalEntry::Formed { generation: at, .. }
            | JournalEntry::Recovered { generation: at, .. } => generation = generation.max(at),
            _ => {}
        }
    }
    let run_id = run_id.ok_or_else(|| {
        Failure::usage(format!(
            "{} does not say which run it is of; start a new run",
            store.root().display()
        ))
    })?;
    let checkpoints = Checkpoints::open(store.root());
    let newest = checkpoints.newest()?;
    let checkpoint = newest.checkpoint.map(|whole| whole.position);
    let split = store.read_split()?;
    let epochs = store.epochs().to_vec();
    generation = epochs
        .iter()
        .map(|e| e.generation)
        .fold(generation, u64::max);
    let recipe = spec::recipe(config);
    let run = match &split {
        // Nothing was trained without a split.
        None => Run::inherit(recipe),
        Some(split) => Run::resume(
            recipe,
            Resumed {
                fingerprint: split.fingerprint.clone(),
                train: split.train.clone(),
                validation: split.validation.clone(),
                validation_losses: epochs.iter().map(|epoch| epoch.validation_loss).collect(),
                best_epoch: store.best_epoch()?,
                checkpoint,
                generation,
            },
        ),
    };
    if split.is_none() {
        store.truncate_epochs(0)?;
    }
    let at = checkpoint.unwrap_or(Position::start_of(1));
    journal.append(&JournalEntry::Resumed {
        epoch: at.epoch,
        completed: at.completed,
    })?;
    Ok(OpenedRun {
        past: Some(RunHistory {
            address: store.read_address()?,
            epochs,
            corrupt: newest.corrupt.iter().map(ToString::to_string).collect(),
            checkpoint,
        }),
        store,
        journal,
        checkpoints,
        run,
        run_id,
    })
}

/// 16 random hexadecimal digits.
fn random_name() -> Result<String, getrandom::Error> {
    Ok(format!("{:016x}", getrandom::u64()?))
}
