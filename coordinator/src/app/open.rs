//! A run begins: a fresh one in a new directory, or the one that a directory remembers. Decides
//! which of the two, and whether there is anything left to resume.

use std::path::Path;

use coordinator_core::Run;

use crate::app::exit::Failure;
use crate::app::spec;
use crate::cli::args::Cli;
use crate::config::{RunConfig, Sources};
use crate::store::{
    CONFIG, Checkpoints, Journal, JournalEntry, RunHistory, RunStore, reason_of_end,
};

/// What the command line asks for.
#[derive(Debug)]
pub(super) struct Request {
    /// The effective settings.
    pub(super) config: RunConfig,
    /// The run directory has a run that is to be resumed.
    pub(super) resume: bool,
    /// A flag gives the address to listen on.
    pub(super) listen_asked: bool,
    /// What the user should know about the settings.
    pub(super) notes: Vec<String>,
}

/// Everything of a run that exists before its first worker.
#[derive(Debug)]
pub(super) struct OpenedRun {
    /// Its directory.
    pub(super) store: RunStore,
    /// What happened to it.
    pub(super) journal: Journal,
    /// Its checkpoints.
    pub(super) checkpoints: Checkpoints,
    /// Its state.
    pub(super) run: Run,
    /// Identifies the run to workers that retain a state.
    pub(super) run_id: String,
    /// What a former coordinator left.
    pub(super) history: Option<RunHistory>,
}

impl Request {
    /// Loads the settings. `None`, after a line that says so, when `--resume-if-exists` finds a
    /// run that has ended.
    ///
    /// # Errors
    /// The settings make no sense, or not for the run that they resume.
    pub(super) fn of(cli: Cli) -> Result<Option<Self>, Failure> {
        let mut settings = cli.settings;
        let mut resume = cli.resume;
        if cli.resume_if_exists && resume.is_none() {
            let asked = Sources::of_process(cli.config.clone(), settings.clone());
            let directory = RunConfig::load(&asked)?.config.run_dir;
            if let Some(reason) = ended(&directory)? {
                eprintln!("the run in {} has ended ({reason})", directory.display());
                return Ok(None);
            }
            resume = directory.join(CONFIG).is_file().then_some(directory);
        }
        let listen_asked = settings.listen.is_some();
        let Some(directory) = resume else {
            let loaded = RunConfig::load(&Sources::of_process(cli.config, settings))?;
            return Ok(Some(Self {
                config: loaded.config,
                resume: false,
                listen_asked,
                notes: loaded.notes,
            }));
        };
        let file = Some(directory.join(CONFIG));
        settings.run_dir = Some(directory);
        let config = RunConfig::load(&Sources::of_process(file.clone(), settings))?.config;
        let saved = Sources {
            file,
            ..Sources::default()
        };
        config.check_continues(&RunConfig::load(&saved)?.config)?;
        Ok(Some(Self {
            config,
            resume: true,
            listen_asked,
            notes: Vec::new(),
        }))
    }
}

/// Makes the directory of a fresh run, or takes over that of a run that was stopped or whose
/// coordinator died.
///
/// # Errors
/// The directory cannot be made or holds something; or it is no run directory, belongs to a
/// live coordinator, is damaged, or its run has ended.
pub(super) fn open(request: &Request) -> Result<OpenedRun, Failure> {
    match request.resume {
        true => resume(&request.config),
        false => create(&request.config),
    }
}

fn create(config: &RunConfig) -> Result<OpenedRun, Failure> {
    let store = RunStore::create(&config.run_dir)?;
    let mut journal = Journal::open(store.root())?;
    let run_id = random_name().map_err(Failure::internal)?;
    journal.append(JournalEntry::Started {
        run_id: run_id.clone(),
        workers: config.workers,
    })?;
    // What makes it a run directory, which has all of the above.
    store.write(CONFIG, config.to_toml()?.as_bytes())?;
    Ok(OpenedRun {
        checkpoints: Checkpoints::open(store.root()),
        run: Run::new(spec::recipe(config)),
        store,
        journal,
        run_id,
        history: None,
    })
}

/// Why the run in a directory has ended, if it has, so that nothing is left to resume.
fn ended(directory: &Path) -> Result<Option<String>, Failure> {
    if !directory.join(CONFIG).is_file() {
        return Ok(None);
    }
    let _store = RunStore::open(directory)?;
    Ok(reason_of_end(&Journal::open(directory)?.lines()?))
}

fn resume(config: &RunConfig) -> Result<OpenedRun, Failure> {
    let mut store = RunStore::open(&config.run_dir)?;
    let mut journal = Journal::open(store.root())?;
    let checkpoints = Checkpoints::open(store.root());
    let history = RunHistory::read(&store, &journal, &checkpoints)?;
    let directory = store.root().display();
    if let Some(reason) = &history.ended {
        return Err(Failure::usage(format!(
            "the run in {directory} has ended ({reason}); there is nothing to resume"
        )));
    }
    let Some(run_id) = history.run_id.clone() else {
        return Err(Failure::usage(format!(
            "{directory} does not name its run (events.jsonl has no `started` line); start a new run"
        )));
    };
    let run = match history.resumed() {
        Some(resumed) => Run::resume(spec::recipe(config), resumed),
        // Nothing was trained without a split.
        None => {
            store.truncate_epochs(0)?;
            Run::inherit(spec::recipe(config))
        }
    };
    let at = history.position();
    journal.append(JournalEntry::Resumed {
        epoch: at.epoch,
        completed: at.completed,
    })?;
    Ok(OpenedRun {
        history: Some(history),
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
