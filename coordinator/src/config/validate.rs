//! The rules that well-formed values must still obey, alone and together.

use coordinator_core::schedule::by_group;

use super::exposure::Policy;
use super::{BatchNorm, ConfigError, RunConfig};

/// A larger input is a typing error: the largest image of Caltech101 is 3999 pixels high.
const MAX_IMAGE_SIZE: u32 = 4096;
/// More than any machine has processors.
const MOST_THREADS: u32 = 8192;
/// Seconds of a day.
const MAX_TIMEOUT: u64 = 24 * 60 * 60;
/// The settings that decide which samples form a step, and what is computed from them.
const FIXED_BY_POSITIONS: [&str; 6] = [
    "global-batch",
    "seed",
    "validation-fraction",
    "limit-per-class",
    "image-size",
    "batch-norm",
];

/// Adds a sentence to the list of broken rules, unless the rule holds.
macro_rules! rule {
    ($broken:ident, $holds:expr, $($sentence:tt)+) => {
        if !$holds {
            $broken.push(format!($($sentence)+));
        }
    };
}

fn outcome(broken: Vec<String>) -> Result<(), ConfigError> {
    match broken.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Invalid(broken)),
    }
}

impl RunConfig {
    /// Checks that this configuration can continue a run with the settings `saved`: a position is
    /// a number of steps, so the settings that decide which samples form a step must stay.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with one sentence for each setting that changed.
    pub fn check_continues(&self, saved: &Self) -> Result<(), ConfigError> {
        let table = |config: &Self| {
            toml::Table::try_from(&config.saved)
                .map_err(|error| ConfigError::Unwritable(error.to_string()))
        };
        let (saved, now) = (table(saved)?, table(self)?);
        let said = |value: Option<&toml::Value>| match value {
            None => "not set".to_owned(),
            Some(toml::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let mut broken = Vec::new();
        for key in FIXED_BY_POSITIONS {
            let (saved, now) = (said(saved.get(key)), said(now.get(key)));
            rule!(
                broken,
                saved == now,
                "{key} is {saved} in the run to resume, and cannot become {now}; leave it out, or \
                 start a new run"
            );
        }
        outcome(broken)
    }

    /// Checks every rule and reports all that are broken in one line.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with one sentence per broken rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut broken = Vec::new();
        self.check_membership(&mut broken);
        self.check_recipe(&mut broken);
        self.check_data(&mut broken);
        self.check_learning_rates(&mut broken);
        self.check_timeouts(&mut broken);
        self.check_network(&mut broken);
        outcome(broken)
    }

    fn check_membership(&self, broken: &mut Vec<String>) {
        let (workers, batch) = (self.workers, self.global_batch);
        let (least, most) = (self.min_workers, self.max_workers);
        rule!(broken, workers >= 1, "workers must be at least 1, not 0");
        rule!(
            broken,
            (1..=workers.max(1)).contains(&least),
            "min-workers must be from 1 to workers {workers}, not {least}"
        );
        rule!(
            broken,
            most == workers || (workers..=batch).contains(&most),
            "max-workers must be from workers {workers} to global-batch {batch}, not {most}"
        );
        rule!(
            broken,
            batch >= workers.max(1),
            "global-batch {batch} is smaller than workers {workers}: each worker needs at least \
             one sample a step"
        );
        rule!(
            broken,
            self.threads_per_worker
                .is_none_or(|threads| threads <= MOST_THREADS),
            "threads-per-worker must be at most {MOST_THREADS}; leave it out, and the workers of a \
             machine share its processors"
        );
        rule!(
            broken,
            self.threads_per_worker != Some(0),
            "threads-per-worker must be at least 1, not 0; leave it out, and the workers \
             of a machine share its processors"
        );
    }

    fn check_recipe(&self, broken: &mut Vec<String>) {
        let (delta, decay) = (self.min_delta, self.weight_decay);
        rule!(broken, self.epochs >= 1, "epochs must be at least 1, not 0");
        rule!(
            broken,
            self.patience >= 1,
            "patience must be at least 1, not 0; to never stop early, give as many as epochs"
        );
        rule!(
            broken,
            delta >= 0.0 && delta.is_finite(),
            "min-delta must be 0 or a positive number, not {delta}"
        );
        rule!(
            broken,
            decay >= 0.0 && decay.is_finite(),
            "weight-decay must be 0 or a positive number, not {decay}"
        );
    }

    fn check_data(&self, broken: &mut Vec<String>) {
        let (size, fraction) = (self.image_size, self.validation_fraction);
        let (limit, seed) = (self.limit_per_class, self.seed);
        rule!(
            broken,
            (32..=MAX_IMAGE_SIZE).contains(&size),
            "image-size must be from 32 to {MAX_IMAGE_SIZE}, not {size}: the network divides it by 32"
        );
        rule!(
            broken,
            size != 32 || self.batch_norm == BatchNorm::Frozen,
            "image-size 32 leaves one pixel to the last layers, of which a slice of one sample has \
             no variance; use 33 or more, or batch-norm frozen"
        );
        rule!(
            broken,
            fraction > 0.0 && fraction < 1.0,
            "validation-fraction must lie between 0 and 1, both excluded, not {fraction}"
        );
        rule!(
            broken,
            self.data_bandwidth > 0,
            "data-bandwidth must be at least 1 MiB a second, not 0"
        );
        rule!(
            broken,
            limit != Some(0),
            "limit-per-class must be at least 1, not 0; leave it out to use all"
        );
        rule!(
            broken,
            limit.is_none_or(|limit| u32::try_from(limit).is_ok()),
            "limit-per-class must be at most {}",
            u32::MAX
        );
        rule!(
            broken,
            i64::try_from(seed).is_ok(),
            "seed {seed} is larger than TOML's integers, at most {}",
            i64::MAX
        );
    }

    fn check_learning_rates(&self, broken: &mut Vec<String>) {
        let (gamma, warmup, epochs) = (self.lr_gamma, self.warmup_epochs, self.epochs);
        for (group, lr) in by_group(self.layer_lr) {
            rule!(
                broken,
                lr >= 0.0 && lr.is_finite(),
                "layer-lr of {group} must be 0 or a positive number, not {lr}"
            );
        }
        rule!(
            broken,
            self.layer_lr.iter().any(|lr| *lr != 0.0),
            "layer-lr is 0 for every group, so nothing would be trained"
        );
        rule!(
            broken,
            self.lr_step_epochs >= 1,
            "lr-step-epochs must be at least 1, not 0"
        );
        rule!(
            broken,
            gamma > 0.0 && gamma <= 1.0,
            "lr-gamma must be above 0 and at most 1, not {gamma}"
        );
        rule!(
            broken,
            warmup < epochs.max(1),
            "warmup-epochs {warmup} leaves no epoch of {epochs} at full learning rate"
        );
    }

    fn check_timeouts(&self, broken: &mut Vec<String>) {
        for (name, timeout, least) in [
            ("rejoin-timeout", self.rejoin_timeout, 0),
            ("stall-timeout", self.stall_timeout, 1),
            ("hold-timeout", self.hold_timeout, 0),
            ("grace", self.grace, 1),
            ("collective-timeout", self.collective_timeout, 1),
        ] {
            let seconds = timeout.as_secs();
            rule!(
                broken,
                (least..=MAX_TIMEOUT).contains(&seconds),
                "{name} must be from {least} to {MAX_TIMEOUT} seconds, not {seconds}"
            );
        }
        let (collective, stall) = (self.collective_timeout, self.stall_timeout);
        rule!(
            broken,
            collective < stall,
            "collective-timeout {} must be shorter than stall-timeout {}: a rank whose peer hangs \
             is to leave its collective before it counts as stalled itself",
            collective.as_secs(),
            stall.as_secs()
        );
    }

    fn check_network(&self, broken: &mut Vec<String>) {
        let listen = self.listen;
        rule!(
            broken,
            self.metrics_listen != listen || listen.port() == 0,
            "listen and metrics-listen are both {listen}"
        );
        if let Some(endpoint) = &self.otlp_endpoint {
            rule!(
                broken,
                common::trace::is_endpoint(endpoint),
                "otlp-endpoint must be http://HOST:PORT, where a collector takes OTLP over gRPC, \
                 not {endpoint}"
            );
        }
        let tls = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-ca", &self.tls_ca),
        ];
        let missing = tls.iter().filter(|(_, file)| file.is_none());
        let missing: Vec<_> = missing.map(|(flag, _)| *flag).collect();
        let partly = !missing.is_empty() && missing.len() < tls.len();
        rule!(
            broken,
            !partly,
            "--tls-cert, --tls-key and --tls-ca belong together; add {}",
            missing.join(" and ")
        );
        rule!(
            broken,
            partly || Policy::of(self).allows(listen),
            "listen {listen} can be reached from other machines: give --tls-cert, --tls-key and \
             --tls-ca, or --token-file, so that only your workers join, or --insecure to let every \
             process join"
        );
    }
}
