//! Facts as lines of the console.

use super::{Progress, format, skipped};
use crate::observe::view::RunView;
use coordinator_core::Fact;
use coordinator_core::event::StopReason;
use coordinator_core::words::count;

impl Progress {
    /// Shows a fact; `view` has taken it into account.
    pub(in crate::observe) fn apply(&mut self, fact: &Fact, view: &RunView) {
        match fact {
            Fact::Joined {
                members, expected, ..
            } => tracing::info!(joined = members, expected, "a worker joined"),
            Fact::Waiting(reason) => tracing::info!("waiting for {reason}"),
            Fact::Lost {
                member,
                location,
                cause,
            } => self.say(&format!("lost {member} {location}: {cause}")),
            Fact::Exited { local_rank, status } => {
                self.say(&format!("local worker {local_rank} {status}"));
            }
            Fact::Left { member } => self.say(&format!("{member} left after draining")),
            Fact::Warned { host, warning } => self.warn(format!("on {host}: {warning}")),
            Fact::TooManyThreads {
                host,
                workers,
                threads,
                processors,
            } => self.warn(format::too_many_threads(
                host,
                *workers,
                *threads,
                *processors,
            )),
            Fact::Refused { member, reason } => self.say(&format!("refused {member}: {reason}")),
            Fact::LaunchFailed { local_rank, error } => self.say(&format!(
                "local worker {local_rank} cannot be started: {error}"
            )),
            Fact::Stalled(report) => self.say(&report.to_string()),
            Fact::CheckpointMissed => self.say(&format!(
                "the last checkpoint did not arrive within --grace; --resume continues from {}",
                view.durable
            )),
            Fact::RolledBack { position, .. } => self.say(&format!(
                "rolled back to {position}: no newer state available"
            )),
            Fact::BadFiles(bad) => skipped::lines(bad).iter().for_each(|line| self.say(line)),
            Fact::Preparing { done, total } => self.preparing(*done as u64, *total as u64),
            Fact::EpochEnded {
                epoch, stopping, ..
            } => {
                let best = stopping.best.map(|best| best.epoch);
                self.epoch(epoch, view.epochs, best == Some(epoch.epoch));
            }
            Fact::Step { .. } => {
                if let Some(step) = &view.completed {
                    self.step(step);
                }
            }
            Fact::Stopping(StopReason::Interrupted) => {
                self.say("stopping after the current steps; again to stop at once");
            }
            Fact::EpochStarted { .. } | Fact::Stopping(_) => {}
            Fact::Recovered { .. } | Fact::SplitReady { .. } | Fact::GroupFormed { .. } => {
                self.milestone(fact);
            }
        }
    }

    fn milestone(&mut self, fact: &Fact) {
        match fact {
            Fact::Recovered {
                position,
                world_size,
                seconds,
                steps_lost,
                ..
            } => self.say(&format!(
                "recovered in {seconds:.1} s: {} from {position}{}",
                match world_size {
                    1 => "1 rank continues".to_owned(),
                    ranks => format!("{ranks} ranks continue"),
                },
                match steps_lost {
                    0 => String::new(),
                    lost => format!("; {} to repeat", count(*lost as usize, "step")),
                }
            )),
            Fact::SplitReady { classes, split, .. } => self.say(&format!(
                "data: {} classes, {} training images, {} validation images",
                classes.len(),
                split.train.len(),
                split.validation.len()
            )),
            Fact::GroupFormed {
                ranks,
                backend,
                precision,
                ..
            } => {
                let over = match ranks.len() {
                    1 => String::new(),
                    _ => format!(" over {backend}"),
                };
                self.say(&format!(
                    "group: {}{over}, computing in {precision}",
                    count(ranks.len(), "rank")
                ));
            }
            _ => {}
        }
    }
}
