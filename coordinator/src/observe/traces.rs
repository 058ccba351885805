//! The run as spans of its trace: `run`, and in it `epoch` and `recovery`. A span is sent when it
//! ends, so a coordinator that is killed takes its unfinished ones with it.

use std::time::{Duration, SystemTime};

use common::trace::{Span, SpanId, Spans, TraceId};

use coordinator_core::Fact;
use coordinator_core::event::{FinishedEpoch, OutageCause, Outcome};

/// What traces need to remember.
#[derive(Debug)]
pub(super) struct Traces {
    spans: Spans,
    run: SpanId,
    started: SystemTime,
    generation: u64,
    epoch: Option<Open>,
}

/// The current generation's part of an epoch.
#[derive(Debug)]
struct Open {
    epoch: u32,
    generation: u64,
    completed: u32,
    world_size: u32,
    started: SystemTime,
}

impl Traces {
    /// Of a run that begins now.
    pub(super) fn new(spans: Spans, trace: TraceId) -> Self {
        let started = SystemTime::now();
        Self {
            spans,
            run: trace.run(started),
            started,
            generation: 0,
            epoch: None,
        }
    }

    /// Takes a fact into account, and sends the spans that it ends.
    pub(super) fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::GroupFormed { generation, .. } => self.generation = *generation,
            Fact::EpochStarted {
                epoch,
                completed,
                world_size,
                ..
            } => self.epoch_started(*epoch, *completed, *world_size),
            Fact::EpochEnded {
                epoch, stopping, ..
            } => {
                let best = stopping.best.map(|best| best.epoch);
                self.epoch_ended(epoch, best == Some(epoch.epoch));
            }
            Fact::Recovered {
                cause,
                seconds,
                steps_lost,
                ..
            } => self.recovered(*cause, *seconds, *steps_lost),
            _ => {}
        }
    }

    fn epoch_started(&mut self, epoch: u32, completed: u32, world_size: u32) {
        // A generation that was aborted for another world size leaves its epoch unfinished.
        if let Some(span) = self.take_epoch() {
            self.spans.send(span);
        }
        self.epoch = Some(Open {
            epoch,
            generation: self.generation,
            completed,
            world_size,
            started: SystemTime::now(),
        });
    }

    fn epoch_ended(&mut self, epoch: &FinishedEpoch, improved: bool) {
        if let Some(span) = self.take_epoch() {
            self.spans.send(
                span.with("train_loss", epoch.train_loss)
                    .with("validation_loss", epoch.validation_loss)
                    .with("improved", improved),
            );
        }
    }

    fn recovered(&mut self, cause: OutageCause, seconds: f64, steps_lost: u32) {
        let now = SystemTime::now();
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let broke = now.checked_sub(took).unwrap_or(now);
        if let Some(span) = self.take_epoch() {
            self.spans.send(span.ended(broke).failed(cause.label()));
        }
        let id = self.spans.trace().recovery(self.generation);
        self.spans.send(
            Span::new("recovery", id, Some(self.run), broke)
                .with("cause", cause.label())
                .with("seconds", seconds)
                .count("steps_lost", steps_lost)
                .count("generation", self.generation),
        );
    }

    /// Ends the span of the run.
    pub(super) fn ended(mut self, outcome: &Outcome) {
        if let Some(span) = self.take_epoch() {
            self.spans.send(span);
        }
        let span = Span::new("run", self.run, None, self.started);
        self.spans.send(match outcome {
            Ok(reason) => span.with("stop_reason", reason.label()),
            Err(error) => span.failed(&error.to_string()),
        });
    }

    /// The span of the open epoch, up to now.
    fn take_epoch(&mut self) -> Option<Span> {
        let open = self.epoch.take()?;
        let id = self.spans.trace().epoch(open.epoch, open.generation);
        Some(
            Span::new("epoch", id, Some(self.run), open.started)
                .count("epoch", open.epoch)
                .count("generation", open.generation)
                .count("first_step", open.completed)
                .count("world_size", open.world_size),
        )
    }
}
