//! What the training thread does. The thread writes it, and the agent reports it every second,
//! however long the thread is busy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use worker_control::{Activity, Position};

/// A snapshot of the training thread.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The generation that it works for.
    pub generation: u64,
    /// How far its state has come.
    pub position: Position,
    /// What it does.
    pub activity: Activity,
    /// Since when.
    pub since: Instant,
}

/// Shared by the training thread and the agent.
#[derive(Debug, Clone)]
pub struct ActivityTracker(Arc<Mutex<Snapshot>>);

impl Default for ActivityTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Snapshot {
            generation: 0,
            position: Position::default(),
            activity: Activity::Idle,
            since: Instant::now(),
        })))
    }
}

impl ActivityTracker {
    /// Begins an activity; also the same one again, as with the next chunk of a validation.
    pub fn enter(&self, activity: Activity) {
        tracing::debug!(phase = ?activity, "training thread");
        self.change(|now| {
            now.activity = activity;
            now.since = Instant::now();
        });
    }

    /// Sets the generation, and how far the state has come.
    pub fn at(&self, generation: u64, position: Position) {
        self.change(|now| {
            now.generation = generation;
            now.position = position;
        });
    }

    /// What it does now.
    pub fn snapshot(&self) -> Snapshot {
        self.change(|now| *now)
    }

    /// Plain values stay usable when the other side has panicked.
    fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
