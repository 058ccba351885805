//! Says to whoever watches the process that it lives, and what it is at: one word in a file,
//! written every second, that goes with the process. So a health check needs no port and no
//! program: the file is there and young.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use worker_control::Activity;

use crate::trainer::activity::ActivityTracker;

const EVERY: Duration = Duration::from_secs(1);

/// What the process is at.
#[derive(Debug, Clone, Default)]
pub(crate) enum State {
    /// It looks for its coordinator, and holds no state yet.
    #[default]
    Connecting,
    /// It is in a session, and does what the training thread does.
    Joined(ActivityTracker),
    /// Its coordinator is gone, and it holds its state.
    Holding,
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Holding => "holding",
            Self::Joined(activity) => match activity.snapshot().activity {
                Activity::Idle => "waiting",
                Activity::Preparing => "preparing",
                _ => "training",
            },
        }
    }
}

/// The writer of the file. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Health {
    state: Arc<Mutex<State>>,
    file: Option<(PathBuf, JoinHandle<()>)>,
}

impl Health {
    /// Begins to write to `file`, if there is one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The file cannot be written; later failures are only logged.
    pub(crate) fn start(file: Option<&Path>) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let Some(path) = file else {
            return Ok(Self { state, file: None });
        };
        write(path, State::default().word())?;
        let (target, shown) = (path.to_path_buf(), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                ticks.tick().await;
                let word = lock(&shown).word();
                if let Err(error) = write(&target, word) {
                    tracing::warn!(path = %target.display(), %error, "cannot write the health file");
                }
            }
        });
        let file = Some((path.to_path_buf(), task));
        Ok(Self { state, file })
    }

    pub(crate) fn set(&self, state: State) {
        *lock(&self.state) = state;
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if let Some((path, task)) = &self.file {
            task.abort();
            // A file that stays grows old, which says the same.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Readers see the old word or the new one, never half of it.
fn write(path: &Path, word: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{word}\n"))?;
    std::fs::rename(&new, path)
}

/// A word is whole after any panic.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_says_the_state_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health");
        let read = || std::fs::read_to_string(&path).unwrap();
        let health = Health::start(Some(&path)).unwrap();
        assert_eq!(read(), "connecting\n");
        let activity = ActivityTracker::default();
        health.set(State::Joined(activity.clone()));
        activity.enter(Activity::Forward);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while read() != "training\n" {
            assert!(tokio::time::Instant::now() < deadline, "{}", read());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(health);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!path.exists());
        assert!(Health::start(Some(&folder.path().join("absent/health"))).is_err());
    }
}
