//! Where the training thread is. It writes, and the agent tells the coordinator every second,
//! however long the thread is stuck.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use proto::v1;

#[derive(Debug)]
struct Place {
    generation: u64,
    position: v1::Position,
    phase: v1::Phase,
    since: Instant,
}

/// Shared by the two.
#[derive(Debug, Clone)]
pub struct ActivityTracker(Arc<Mutex<Place>>);

impl Default for ActivityTracker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Place {
            generation: 0,
            position: v1::Position::default(),
            phase: v1::Phase::Unspecified,
            since: Instant::now(),
        })))
    }
}

impl ActivityTracker {
    /// Begins something; also when it is the same again, as with the next chunk of a validation.
    pub fn enter(&self, phase: v1::Phase) {
        tracing::debug!(phase = phase.as_str_name(), "enters");
        self.change(|place| {
            place.phase = phase;
            place.since = Instant::now();
        });
    }

    /// Says for which generation, and how far the state has come.
    pub fn at(&self, generation: u64, position: v1::Position) {
        self.change(|place| {
            place.generation = generation;
            place.position = position;
        });
    }

    /// What the coordinator is told.
    pub fn heartbeat(&self) -> v1::Heartbeat {
        self.change(|place| v1::Heartbeat {
            generation: place.generation,
            epoch: place.position.epoch,
            completed: place.position.completed,
            phase: place.phase.into(),
            seconds: place.since.elapsed().as_secs_f64(),
        })
    }

    /// Plain values stay usable when the other side has panicked.
    fn change<T>(&self, change: impl FnOnce(&mut Place) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
