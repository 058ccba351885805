//! The numbers that Prometheus reads. Every series stands in `table` and exists from the start,
//! so that no alert has to wait for a first value. The registry is passed in: there is no
//! global one. Nothing here reads a clock or decides anything.

mod apply;
mod labels;
mod ranks;
mod table;
mod traffic;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use coordinator_core::event::OutageCause;
use coordinator_core::schedule::{GroupLrs, PARAMETER_GROUPS, by_group};
pub use labels::{Method, Phase, RunState, STOP_LABELS, SplitLabel, WorkerState, stop_label};
pub use ranks::RankFacts;
use ranks::Ranks;
pub use table::{GRPC_PREFIX, Kind, MetricSpec, PREFIX, TABLE};
pub use traffic::Traffic;

/// What the constant series say about a run.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Name of the run, the last part of its directory.
    pub run: String,
    /// `demo` or the data folder.
    pub dataset: String,
    /// Workers that the run is meant to have; there are series for the ranks below.
    pub workers: usize,
    /// The most epochs.
    pub epochs: u32,
    /// Epochs without improvement before the run stops.
    pub patience: u32,
}

/// Wall seconds of one step, by phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSeconds {
    /// The whole step.
    pub step: f64,
    /// See [`Phase::DataWait`].
    pub data_wait: f64,
    /// See [`Phase::ForwardBackward`].
    pub forward_backward: f64,
    /// See [`Phase::AllreduceWait`].
    pub allreduce_wait: f64,
    /// See [`Phase::Optimizer`].
    pub optimizer: f64,
}

/// Handles on every series; cheap to clone, safe to use from anywhere.
#[derive(Debug, Clone)]
pub struct Metrics {
    run_state: GaugeVec,
    stop_reason: GaugeVec,
    epoch: Gauge,
    epoch_steps: Gauge,
    epoch_steps_target: Gauge,
    steps: IntCounter,
    samples: IntCounterVec,
    last_step: Gauge,
    loss: GaugeVec,
    accuracy: GaugeVec,
    best_loss: Gauge,
    best_epoch: Gauge,
    wait: Gauge,
    learning_rate: GaugeVec,
    images_per_second: Gauge,
    ranks: Ranks,
    workers: GaugeVec,
    generation: Gauge,
    decode_errors: IntCounter,
    data_sent: IntCounter,
    data_bandwidth: Gauge,
    workers_lost: IntCounter,
    recovery_duration: HistogramVec,
    checkpoint_time: Gauge,
    checkpoint_bytes: Gauge,
    checkpoint_lag: Gauge,
    traffic: Traffic,
}

impl Metrics {
    /// Registers every series, with its first value.
    ///
    /// # Errors
    /// The registry holds one of the names already.
    pub fn new(registry: &Registry, facts: &RunFacts) -> Result<Self, prometheus::Error> {
        let register = Register(registry);
        let build = register.gauges(&table::BUILD_INFO)?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let run = register.gauges(&table::RUN_INFO)?;
        run.with_label_values(&[facts.run.as_str(), "resnet18", &facts.dataset])
            .set(1.0);
        register
            .gauge(&table::EPOCHS_TARGET)?
            .set(facts.epochs.into());
        register.gauge(&table::PATIENCE)?.set(facts.patience.into());

        let metrics = Self {
            run_state: register.gauges(&table::RUN_STATE)?,
            stop_reason: register.gauges(&table::STOP_REASON)?,
            epoch: register.gauge(&table::EPOCH)?,
            epoch_steps: register.gauge(&table::EPOCH_STEPS)?,
            epoch_steps_target: register.gauge(&table::EPOCH_STEPS_TARGET)?,
            steps: register.register(IntCounter::with_opts(opts(&table::STEPS))?)?,
            samples: register.register(IntCounterVec::new(
                opts(&table::SAMPLES),
                table::SAMPLES.labels,
            )?)?,
            last_step: register.gauge(&table::LAST_STEP)?,
            loss: register.gauges(&table::LOSS)?,
            accuracy: register.gauges(&table::ACCURACY)?,
            best_loss: register.gauge(&table::BEST_LOSS)?,
            best_epoch: register.gauge(&table::BEST_EPOCH)?,
            wait: register.gauge(&table::WAIT)?,
            learning_rate: register.gauges(&table::LEARNING_RATE)?,
            images_per_second: register.gauge(&table::IMAGES_PER_SECOND)?,
            ranks: Ranks::new(&register, facts.workers)?,
            workers: register.gauges(&table::WORKERS)?,
            generation: register.gauge(&table::GENERATION)?,
            decode_errors: register
                .register(IntCounter::with_opts(opts(&table::DECODE_ERRORS))?)?,
            data_sent: register.register(IntCounter::with_opts(opts(&table::DATA_SENT))?)?,
            data_bandwidth: register.gauge(&table::DATA_BANDWIDTH)?,
            workers_lost: register.register(IntCounter::with_opts(opts(&table::WORKERS_LOST))?)?,
            recovery_duration: register.histograms(&table::RECOVERY_DURATION)?,
            checkpoint_time: register.gauge(&table::CHECKPOINT_TIME)?,
            checkpoint_bytes: register.gauge(&table::CHECKPOINT_BYTES)?,
            checkpoint_lag: register.gauge(&table::CHECKPOINT_LAG)?,
            traffic: Traffic::new(&register)?,
        };
        metrics.initialise(facts);
        Ok(metrics)
    }

    /// Gives each labelled series its first value: 0, or NaN for what has no value yet.
    fn initialise(&self, facts: &RunFacts) {
        self.set_run_state(RunState::Waiting);
        for label in STOP_LABELS {
            self.stop_reason.with_label_values(&[label]).set(0.0);
        }
        for split in SplitLabel::ALL {
            self.samples.with_label_values(&[split.label()]).inc_by(0);
            self.loss.with_label_values(&[split.label()]).set(f64::NAN);
        }
        self.accuracy
            .with_label_values(&[SplitLabel::Validation.label()])
            .set(f64::NAN);
        self.best_loss.set(f64::NAN);
        for group in PARAMETER_GROUPS {
            self.learning_rate.with_label_values(&[group]).set(0.0);
        }
        for cause in OutageCause::ALL {
            self.recovery_duration.with_label_values(&[cause.label()]);
        }
        for state in WorkerState::ALL {
            self.workers.with_label_values(&[state.label()]).set(0.0);
        }
        self.set_workers(WorkerState::Expected, facts.workers);
    }

    /// Moves the run to `state`: its series is 1, all others 0.
    pub fn set_run_state(&self, state: RunState) {
        for other in RunState::ALL {
            let value = f64::from(u8::from(*other == state));
            self.run_state
                .with_label_values(&[other.label()])
                .set(value);
        }
    }

    /// Records why the run stopped, by one of [`STOP_LABELS`].
    pub fn set_stop_reason(&self, label: &str) {
        self.stop_reason.with_label_values(&[label]).set(1.0);
    }

    /// The handles on what the coordinator itself has to do.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Sets how many steps of the epoch all ranks have made, and how many it has.
    pub fn set_epoch_steps(&self, done: u32, target: u32) {
        self.epoch_steps.set(done.into());
        self.epoch_steps_target.set(target.into());
    }

    /// Begins an epoch, counted from 1, with these learning rates.
    pub fn begin_epoch(&self, epoch: u32, lrs: GroupLrs) {
        self.epoch.set(epoch.into());
        for (group, lr) in by_group(lrs) {
            self.learning_rate.with_label_values(&[group]).set(lr);
        }
    }

    /// Counts one finished step of all ranks together: `samples` used, and the Unix time.
    pub fn step_done(&self, samples: u64, unix_seconds: f64) {
        self.steps.inc();
        self.samples
            .with_label_values(&[SplitLabel::Train.label()])
            .inc_by(samples);
        self.last_step.set(unix_seconds);
    }

    /// Adds what one rank spent on a step.
    pub fn rank_step(&self, rank: usize, seconds: StepSeconds) {
        self.ranks.step(rank, seconds);
    }

    /// Adds what one rank spent on its part of a validation of `samples` images.
    pub fn rank_validation(&self, rank: usize, seconds: f64, samples: u64) {
        self.samples
            .with_label_values(&[SplitLabel::Validation.label()])
            .inc_by(samples);
        self.ranks.validation(rank, seconds);
    }

    /// Sets the mean training loss so far and the speed of all ranks together.
    pub fn set_training(&self, loss: f64, images_per_second: f64) {
        self.loss
            .with_label_values(&[SplitLabel::Train.label()])
            .set(loss);
        self.images_per_second.set(images_per_second);
    }

    /// Sets the result of a validation; the accuracy is a share from 0 to 1.
    pub fn set_validation(&self, loss: f64, accuracy: f64) {
        self.loss
            .with_label_values(&[SplitLabel::Validation.label()])
            .set(loss);
        self.accuracy
            .with_label_values(&[SplitLabel::Validation.label()])
            .set(accuracy);
    }

    /// Sets where early stopping stands: the best epoch and its loss, and how many epochs have
    /// passed without a better one.
    pub fn set_best(&self, best_epoch: u32, best_loss: f64, epochs_waited: u32) {
        self.best_epoch.set(best_epoch.into());
        self.best_loss.set(best_loss);
        self.wait.set(epochs_waited.into());
    }

    /// Sets how many workers are in a state.
    pub fn set_workers(&self, state: WorkerState, count: usize) {
        self.workers
            .with_label_values(&[state.label()])
            .set(count as f64);
    }

    /// Begins a generation of these ranks; those of a larger one before it are gone.
    pub fn begin_generation(&self, generation: u64, ranks: &[RankFacts], unix_seconds: f64) {
        self.generation.set(generation as f64);
        self.ranks.formed(ranks, unix_seconds);
    }

    /// Records that the holder of a rank was heard of.
    pub fn heard(&self, rank: usize, unix_seconds: f64) {
        self.ranks.heard(rank, unix_seconds);
    }

    /// Counts a worker that died, hung or was cut off.
    pub fn worker_lost(&self) {
        self.workers_lost.inc();
    }

    /// Adds a recovery that took so long.
    pub fn recovered(&self, cause: OutageCause, seconds: f64) {
        self.recovery_duration
            .with_label_values(&[cause.label()])
            .observe(seconds);
    }

    /// Sets how much longer than the group's median a rank is busy with a step.
    pub fn set_straggler(&self, rank: usize, ratio: f64) {
        self.ranks.straggler(rank, ratio);
    }

    /// Records that a checkpoint of `bytes` became durable at a Unix time.
    pub fn checkpoint(&self, unix_seconds: f64, bytes: u64) {
        self.checkpoint_time.set(unix_seconds);
        self.checkpoint_bytes.set(bytes as f64);
    }

    /// Counts bytes of images given to workers.
    pub fn data_sent(&self, bytes: u64) {
        self.data_sent.inc_by(bytes);
    }

    /// Sets how many bytes of images may be given out each second.
    pub fn set_data_bandwidth(&self, bytes_per_second: u64) {
        self.data_bandwidth.set(bytes_per_second as f64);
    }

    /// Sets how many steps were made since the last durable checkpoint.
    pub fn set_checkpoint_lag(&self, steps: u64) {
        self.checkpoint_lag.set(steps as f64);
    }

    /// Counts images that could not be decoded.
    pub fn add_decode_errors(&self, count: u64) {
        self.decode_errors.inc_by(count);
    }
}

fn opts(spec: &MetricSpec) -> Opts {
    Opts::new(spec.full_name(), spec.help)
}

/// Makes series and registers them.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn register<C: Collector + Clone + 'static>(&self, series: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(series.clone()))?;
        Ok(series)
    }

    fn gauge(&self, spec: &MetricSpec) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(opts(spec))?)
    }

    fn gauges(&self, spec: &MetricSpec) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(opts(spec), spec.labels)?)
    }

    fn histograms(&self, spec: &MetricSpec) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(opts(spec)).buckets(table::duration_buckets());
        self.register(HistogramVec::new(options, spec.labels)?)
    }
}

#[cfg(test)]
mod tests;
