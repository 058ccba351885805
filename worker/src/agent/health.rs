//! The health file: one word for the state of the process, rewritten every second and removed when
//! the worker ends. A health check needs no port and no program: it tests that the file is recent.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use worker_control::Activity;

use crate::trainer::activity::ActivityTracker;

const INTERVAL: Duration = Duration::from_secs(1);

/// The state of the process.
#[derive(Debug, Clone, Default)]
pub(crate) enum State {
    /// It tries to reach its coordinator, and has no state yet.
    #[default]
    Connecting,
    /// It is in a session; the word is the activity of the training thread.
    Joined(ActivityTracker),
    /// It lost its coordinator, and retains its state.
    Reconnecting,
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Reconnecting => "reconnecting",
            Self::Joined(activity) => match activity.snapshot().activity {
                Activity::Idle => "waiting",
                Activity::Preparing => "preparing",
                _ => "training",
            },
        }
    }
}

/// The writer of the file.
#[derive(Debug)]
pub(crate) struct Health {
    state: Arc<Mutex<State>>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    /// Dropping it ends the task.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Health {
    /// Begins to write to `file`, if there is one. Must be called within a tokio runtime, whose
    /// task rewrites the file: if the runtime hangs, the file grows old.
    ///
    /// # Errors
    /// The file cannot be written; later failures are only logged.
    pub(crate) async fn start(file: Option<&Path>) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let Some(path) = file else {
            return Ok(Self {
                state,
                writer: None,
            });
        };
        write(path, State::default().word()).await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(rewrite(path.to_path_buf(), Arc::clone(&state), stopped));
        let writer = Some(Writer { stop, task });
        Ok(Self { state, writer })
    }

    pub(crate) fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// Removes the file.
    pub(crate) async fn stop(self) {
        if let Some(Writer { stop, task }) = self.writer {
            drop(stop);
            // It fails when the task panicked, which leaves a file that grows old.
            let _ = task.await;
        }
    }
}

/// Rewrites the file until `stopped`, then removes it.
async fn rewrite(path: PathBuf, state: Arc<Mutex<State>>, mut stopped: oneshot::Receiver<()>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
        }
        let word = lock(&state).word();
        if let Err(error) = write(&path, word).await {
            tracing::warn!(path = %path.display(), %error, "cannot write the health file");
        }
    }
    // A file that stays grows old, which means the same.
    let _ = tokio::fs::remove_file(&path).await;
}

/// Readers see the old word or the new one, never a part of it.
async fn write(path: &Path, word: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    tokio::fs::write(&new, format!("{word}\n")).await?;
    tokio::fs::rename(&new, path).await
}

/// The state is valid after any panic.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_contains_the_state_until_the_worker_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health");
        let read = || std::fs::read_to_string(&path).unwrap();
        let health = Health::start(Some(&path)).await.unwrap();
        assert_eq!(read(), "connecting\n");
        let activity = ActivityTracker::default();
        health.set(State::Joined(activity.clone()));
        activity.enter(Activity::Forward);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while read() != "training\n" {
            assert!(tokio::time::Instant::now() < deadline, "{}", read());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        health.stop().await;
        assert!(!path.exists());
        let absent = folder.path().join("absent/health");
        assert!(Health::start(Some(&absent)).await.is_err());
    }
}
