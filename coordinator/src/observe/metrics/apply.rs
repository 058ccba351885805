//! Facts as metrics. There are series for the ranks of the current generation and, before the
//! first one, for as many as the run is meant to have: a rank that is gone takes its series with
//! it.

use std::sync::atomic::Ordering;

use super::{Metrics, TRAIN, VALIDATION, add, observe, set};
use crate::net::clock::unix_seconds;
use crate::observe::view::RunView;
use coordinator_core::Fact;
use coordinator_core::event::{Phases, Ranked};
use coordinator_core::schedule::by_group;

impl Metrics {
    /// Shows a fact; `view` has taken it into account.
    pub(in crate::observe) fn apply(&self, fact: &Fact, view: &RunView) {
        let series = self.series();
        if let Some(state) = view.entered {
            self.set_run_state(state);
        }
        match fact {
            Fact::Lost { .. } => add(&series.workers_lost_total, &[], 1.0),
            Fact::BadFiles(bad) => add(&series.decode_errors_total, &[], bad.len() as f64),
            Fact::Recovered { cause, seconds, .. } => {
                let recoveries = &series.recovery_duration_seconds;
                observe(recoveries, &[cause.label()], *seconds);
            }
            Fact::GroupFormed {
                generation, ranks, ..
            } => {
                set(&series.generation, &[], *generation as f64);
                self.formed(ranks, unix_seconds());
            }
            Fact::EpochStarted {
                epoch,
                completed,
                steps,
                lrs,
                ..
            } => {
                set(&series.epoch, &[], f64::from(*epoch));
                self.show_progress(*completed, *steps, view);
                for (group, lr) in by_group(*lrs) {
                    set(&series.learning_rate, &[group], lr);
                }
            }
            Fact::Step { rank, report } => {
                let rank = &rank.to_string();
                observe(&series.step_duration_seconds, &[rank], report.seconds);
                for (phase, seconds) in report.phases.named() {
                    // No step has a part of the validation.
                    if phase != VALIDATION {
                        observe(&series.phase_duration_seconds, &[rank, phase], seconds);
                    }
                }
                self.show_completed_step(view);
            }
            Fact::EpochEnded {
                epoch,
                validated,
                ranks,
                stopping,
            } => {
                add(&series.samples_total, &[VALIDATION], *validated as f64);
                set(&series.loss, &[VALIDATION], epoch.validation_loss);
                let accuracy = epoch.validation_accuracy;
                set(&series.accuracy_ratio, &[VALIDATION], accuracy);
                for (rank, phases) in ranks.iter().enumerate() {
                    let labels = [&rank.to_string(), VALIDATION];
                    observe(&series.phase_duration_seconds, &labels, phases.validation);
                }
                self.stopping(*stopping);
            }
            Fact::RolledBack { stopping, .. } => self.stopping(*stopping),
            _ => {}
        }
    }

    fn show_completed_step(&self, view: &RunView) {
        let Some(step) = &view.completed else {
            return;
        };
        let series = self.series();
        add(&series.steps_total, &[], 1.0);
        add(&series.samples_total, &[TRAIN], step.samples as f64);
        set(&series.last_step_timestamp_seconds, &[], unix_seconds());
        // Steps of an epoch fit, as they are counted so.
        self.show_progress(step.step as u32, step.steps as u32, view);
        for (rank, ratio) in view.straggler_ratios().into_iter().enumerate() {
            set(&series.straggler_ratio, &[&rank.to_string()], ratio);
        }
        set(&series.loss, &[TRAIN], step.loss);
    }

    fn show_progress(&self, completed: u32, steps: u32, view: &RunView) {
        let series = self.series();
        set(&series.epoch_steps, &[], completed.into());
        set(&series.epoch_steps_target, &[], steps.into());
        let lag = view.checkpoint_lag() as f64;
        set(&series.checkpoint_lag_steps, &[], lag);
    }

    /// A generation works; all of its ranks were heard of just now.
    fn formed(&self, ranks: &[Ranked], now: f64) {
        self.resize(ranks.len());
        let info = &self.series().worker_info;
        info.reset();
        for (rank, of) in ranks.iter().enumerate() {
            let labels = [&rank.to_string(), &of.host, &of.device, &of.gpu_uuid];
            info.with_label_values(&labels).set(1.0);
            self.heard(rank, now);
        }
    }

    /// Gives each of the ranks its series, and takes those of higher ones away.
    pub(super) fn resize(&self, ranks: usize) {
        let series = self.series();
        let phases = Phases::default().named().map(|(phase, _)| phase);
        let before = self.0.ranks.swap(ranks, Ordering::Relaxed);
        for rank in 0..ranks {
            let rank = rank.to_string();
            series.step_duration_seconds.with_label_values(&[&rank]);
            set(&series.straggler_ratio, &[&rank], 1.0);
            for phase in phases {
                let labels = [rank.as_str(), phase];
                series.phase_duration_seconds.with_label_values(&labels);
            }
        }
        for rank in ranks..before {
            let rank = rank.to_string();
            let heartbeat = &series.worker_last_heartbeat_timestamp_seconds;
            // It fails only for a series that is not there.
            let _ = series.step_duration_seconds.remove_label_values(&[&rank]);
            let _ = series.straggler_ratio.remove_label_values(&[&rank]);
            let _ = heartbeat.remove_label_values(&[&rank]);
            for phase in phases {
                let labels = [rank.as_str(), phase];
                let _ = series.phase_duration_seconds.remove_label_values(&labels);
            }
        }
    }
}
