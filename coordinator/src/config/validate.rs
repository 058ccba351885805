//! The rules that well-formed values must still obey, alone and together.

use std::time::Duration;

use coordinator_core::schedule::by_group;

use super::exposure::Policy;
use super::{BatchNorm, ConfigError, RunConfig};

/// A larger input is a typing error: the largest image of Caltech101 is 3999 pixels high.
const MAX_IMAGE_SIZE: u32 = 4096;
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// The settings that decide which samples form a step, and what is computed from them.
const FIXED_BY_POSITIONS: [&str; 6] = [
    "global-batch",
    "seed",
    "validation-fraction",
    "limit-per-class",
    "image-size",
    "batch-norm",
];

/// Collects the rules that are broken.
#[derive(Default)]
struct Rules(Vec<String>);

impl Rules {
    fn check(&mut self, holds: bool, message: impl Into<String>) {
        if !holds {
            self.0.push(message.into());
        }
    }

    fn outcome(self) -> Result<(), ConfigError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Invalid(self.0)),
        }
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
        let mut rules = Rules::default();
        for key in FIXED_BY_POSITIONS {
            let (saved, now) = (saved.get(key), now.get(key));
            rules.check(
                saved == now,
                format!(
                    "{key} is {} in the run to resume, and cannot become {}; leave it out, or \
                     start a new run",
                    said(saved),
                    said(now)
                ),
            );
        }
        rules.outcome()
    }

    /// Checks every rule and reports all that are broken in one line.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with one sentence per broken rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut rules = Rules::default();
        self.check_membership(&mut rules);
        self.check_stopping(&mut rules);
        self.check_data(&mut rules);
        self.check_learning_rates(&mut rules);
        self.check_compute(&mut rules);
        self.check_timeouts(&mut rules);
        self.check_network(&mut rules);
        rules.outcome()
    }

    fn check_membership(&self, rules: &mut Rules) {
        let (workers, batch) = (self.workers, self.global_batch);
        rules.check(workers >= 1, "workers must be at least 1, not 0");
        rules.check(
            (1..=workers.max(1)).contains(&self.min_workers),
            format!(
                "min-workers must be from 1 to workers {workers}, not {}",
                self.min_workers
            ),
        );
        let max_fits = self.max_workers == workers || (workers..=batch).contains(&self.max_workers);
        rules.check(
            max_fits,
            format!(
                "max-workers must be from workers {workers} to global-batch {batch}, not {}",
                self.max_workers
            ),
        );
        rules.check(
            batch >= workers.max(1),
            format!(
                "global-batch {batch} is smaller than workers {workers}: each worker needs at \
                 least one sample a step"
            ),
        );
    }

    fn check_stopping(&self, rules: &mut Rules) {
        rules.check(self.epochs >= 1, "epochs must be at least 1, not 0");
        rules.check(
            self.patience >= 1,
            "patience must be at least 1, not 0; to never stop early, give as many as epochs",
        );
        rules.check(
            self.min_delta >= 0.0 && self.min_delta.is_finite(),
            format!(
                "min-delta must be 0 or a positive number, not {}",
                self.min_delta
            ),
        );
    }

    fn check_data(&self, rules: &mut Rules) {
        rules.check(
            (32..=MAX_IMAGE_SIZE).contains(&self.image_size),
            format!(
                "image-size must be from 32 to {MAX_IMAGE_SIZE}, not {}: the network divides it \
                 by 32",
                self.image_size
            ),
        );
        let has_variance = self.image_size != 32 || self.batch_norm == BatchNorm::Frozen;
        rules.check(
            has_variance,
            "image-size 32 leaves one pixel to the last layers, of which a slice of one sample \
             has no variance; use 33 or more, or batch-norm frozen",
        );
        let fraction = self.validation_fraction;
        rules.check(
            fraction > 0.0 && fraction < 1.0,
            format!("validation-fraction must lie between 0 and 1, both excluded, not {fraction}"),
        );
        rules.check(
            self.data_bandwidth > 0,
            "data-bandwidth must be at least 1 MiB a second, not 0",
        );
        rules.check(
            self.limit_per_class != Some(0),
            "limit-per-class must be at least 1, not 0; leave it out to use all",
        );
        let fits = self
            .limit_per_class
            .is_none_or(|limit| u32::try_from(limit).is_ok());
        rules.check(
            fits,
            format!("limit-per-class must be at most {}", u32::MAX),
        );
        rules.check(
            i64::try_from(self.seed).is_ok(),
            format!(
                "seed {} is larger than TOML's integers, at most {}",
                self.seed,
                i64::MAX
            ),
        );
    }

    fn check_learning_rates(&self, rules: &mut Rules) {
        for (group, lr) in by_group(self.layer_lr) {
            rules.check(
                lr >= 0.0 && lr.is_finite(),
                format!("layer-lr of {group} must be 0 or a positive number, not {lr}"),
            );
        }
        rules.check(
            self.layer_lr.iter().any(|lr| *lr != 0.0),
            "layer-lr is 0 for every group, so nothing would be trained",
        );
        rules.check(
            self.lr_step_epochs >= 1,
            "lr-step-epochs must be at least 1, not 0",
        );
        rules.check(
            self.lr_gamma > 0.0 && self.lr_gamma <= 1.0,
            format!(
                "lr-gamma must be above 0 and at most 1, not {}",
                self.lr_gamma
            ),
        );
        rules.check(
            self.warmup_epochs < self.epochs.max(1),
            format!(
                "warmup-epochs {} leaves no epoch of {} at full learning rate",
                self.warmup_epochs, self.epochs
            ),
        );
        let decay = self.weight_decay;
        rules.check(
            decay >= 0.0 && decay.is_finite(),
            format!("weight-decay must be 0 or a positive number, not {decay}"),
        );
    }

    fn check_compute(&self, rules: &mut Rules) {
        rules.check(
            self.threads_per_worker != Some(0),
            "threads-per-worker must be at least 1, not 0; leave it out to divide the processors \
             among the workers",
        );
    }

    fn check_timeouts(&self, rules: &mut Rules) {
        for (name, timeout, least) in [
            ("rejoin-timeout", self.rejoin_timeout, 0),
            ("stall-timeout", self.stall_timeout, 1),
            ("hold-timeout", self.hold_timeout, 0),
            ("grace", self.grace, 1),
            ("collective-timeout", self.collective_timeout, 1),
        ] {
            let seconds = timeout.as_secs();
            rules.check(
                (least..=MAX_TIMEOUT.as_secs()).contains(&seconds),
                format!(
                    "{name} must be from {least} to {} seconds, not {seconds}",
                    MAX_TIMEOUT.as_secs()
                ),
            );
        }
    }

    fn check_network(&self, rules: &mut Rules) {
        let listen = self.listen;
        rules.check(
            self.metrics_listen != listen || listen.port() == 0,
            format!("listen and metrics-listen are both {listen}"),
        );
        let endpoint = self.otlp_endpoint.as_deref();
        rules.check(
            endpoint.is_none_or(common::trace::is_endpoint),
            format!(
                "otlp-endpoint must be http://HOST:PORT, where a collector takes OTLP over gRPC, \
                 not {}",
                endpoint.unwrap_or_default()
            ),
        );
        let tls = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-ca", &self.tls_ca),
        ];
        let missing = tls.iter().filter(|(_, file)| file.is_none());
        let missing: Vec<_> = missing.map(|(flag, _)| *flag).collect();
        let partly = !missing.is_empty() && missing.len() < tls.len();
        rules.check(
            !partly,
            format!(
                "--tls-cert, --tls-key and --tls-ca belong together; add {}",
                missing.join(" and ")
            ),
        );
        rules.check(
            partly || Policy::of(self).allows(listen),
            format!(
                "listen {listen} can be reached from other machines: give --tls-cert, --tls-key \
                 and --tls-ca, or --token-file, so that only your workers join, or --insecure to \
                 let every process join"
            ),
        );
    }
}
