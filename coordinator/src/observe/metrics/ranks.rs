//! The series that each rank has. There are those of the current generation's ranks and, before
//! the first one, those of as many as the run is meant to have: a rank that is gone takes its
//! series with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{GaugeVec, HistogramVec};

use super::{Phase, Register, StepSeconds, table};

/// Who holds a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFacts {
    /// Its host.
    pub host: String,
    /// `cpu` or `cuda:` and an index.
    pub device: String,
    /// The GPU as DCGM names it; empty on a CPU.
    pub gpu_uuid: String,
}

#[derive(Debug, Clone)]
pub(super) struct Ranks {
    step_duration: HistogramVec,
    phase_duration: HistogramVec,
    straggler_ratio: GaugeVec,
    heartbeat: GaugeVec,
    info: GaugeVec,
    count: Arc<AtomicUsize>,
}

impl Ranks {
    pub(super) fn new(register: &Register<'_>, ranks: usize) -> Result<Self, prometheus::Error> {
        let new = Self {
            step_duration: register.histograms(&table::STEP_DURATION)?,
            phase_duration: register.histograms(&table::PHASE_DURATION)?,
            straggler_ratio: register.gauges(&table::STRAGGLER_RATIO)?,
            heartbeat: register.gauges(&table::HEARTBEAT)?,
            info: register.gauges(&table::WORKER_INFO)?,
            count: Arc::default(),
        };
        new.resize(ranks);
        for rank in 0..ranks {
            new.heard(rank, f64::NAN);
        }
        Ok(new)
    }

    /// Gives each of the ranks its series, and takes those of higher ones away.
    fn resize(&self, ranks: usize) {
        let before = self.count.swap(ranks, Ordering::Relaxed);
        for rank in 0..ranks {
            let rank = rank.to_string();
            self.step_duration.with_label_values(&[&rank]);
            self.straggler_ratio.with_label_values(&[&rank]).set(1.0);
            for phase in Phase::ALL {
                let labels = [rank.as_str(), phase.label()];
                self.phase_duration.with_label_values(&labels);
            }
        }
        for rank in ranks..before {
            let rank = rank.to_string();
            // It fails only for a series that is not there.
            let _ = self.step_duration.remove_label_values(&[&rank]);
            let _ = self.straggler_ratio.remove_label_values(&[&rank]);
            let _ = self.heartbeat.remove_label_values(&[&rank]);
            for phase in Phase::ALL {
                let labels = [rank.as_str(), phase.label()];
                let _ = self.phase_duration.remove_label_values(&labels);
            }
        }
    }

    /// A generation works; all of its ranks were heard of just now.
    pub(super) fn formed(&self, ranks: &[RankFacts], unix_seconds: f64) {
        self.resize(ranks.len());
        self.info.reset();
        for (rank, facts) in ranks.iter().enumerate() {
            let labels = [
                &rank.to_string(),
                &facts.host,
                &facts.device,
                &facts.gpu_uuid,
            ];
            self.info.with_label_values(&labels).set(1.0);
            self.heard(rank, unix_seconds);
        }
    }

    pub(super) fn heard(&self, rank: usize, unix_seconds: f64) {
        let rank = rank.to_string();
        self.heartbeat.with_label_values(&[&rank]).set(unix_seconds);
    }

    pub(super) fn step(&self, rank: usize, seconds: StepSeconds) {
        let rank = rank.to_string();
        self.step_duration
            .with_label_values(&[&rank])
            .observe(seconds.step);
        for (phase, value) in [
            (Phase::DataWait, seconds.data_wait),
            (Phase::ForwardBackward, seconds.forward_backward),
            (Phase::AllreduceWait, seconds.allreduce_wait),
            (Phase::Optimizer, seconds.optimizer),
        ] {
            self.phase_duration
                .with_label_values(&[rank.as_str(), phase.label()])
                .observe(value);
        }
    }

    pub(super) fn validation(&self, rank: usize, seconds: f64) {
        self.phase_duration
            .with_label_values(&[&*rank.to_string(), Phase::Validation.label()])
            .observe(seconds);
    }

    pub(super) fn straggler(&self, rank: usize, ratio: f64) {
        let rank = rank.to_string();
        self.straggler_ratio.with_label_values(&[&rank]).set(ratio);
    }
}
