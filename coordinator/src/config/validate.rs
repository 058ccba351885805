//! The rules that well-formed values must still obey, alone and together.

use std::time::Duration;

use super::{BatchNorm, ConfigError, RunConfig};
use crate::config::exposure::Policy;

/// Larger inputs are a slip of the finger: Caltech101's largest picture is 3999 pixels high.
const MAX_IMAGE_SIZE: u32 = 4096;
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// What decides which samples form a step, and what is computed of them.
const FIXED_BY_POSITIONS: [&str; 6] = [
    "global-batch",
    "seed",
    "validation-fraction",
    "limit-per-class",
    "image-size",
    "batch-norm",
];

impl RunConfig {
    /// Checks that this can go on where a run with the settings `saved` was: a position is a
    /// number of steps, so what decides which samples form a step must stay.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with one sentence for each setting that changed.
    pub fn check_continues(&self, saved: &Self) -> Result<(), ConfigError> {
        let (saved, now) = (saved.to_table()?, self.to_table()?);
        let said = |value: Option<&toml::Value>| match value {
            None => "not set".to_owned(),
            Some(toml::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let changed: Vec<String> = (FIXED_BY_POSITIONS.iter())
            .map(|key| (key, saved.get(*key), now.get(*key)))
            .filter(|(_, saved, now)| saved != now)
            .map(|(key, saved, now)| {
                format!(
                    "{key} is {} in the run to go on with, and cannot become {}; leave it out, \
                     or start a new run",
                    said(saved),
                    said(now)
                )
            })
            .collect();
        match changed.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Invalid(changed)),
        }
    }

    /// Checks every rule and reports all that are broken in one line.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with one sentence per broken rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut broken = Vec::new();
        let mut rule = |holds: bool, message: String| {
            if !holds {
                broken.push(message);
            }
        };
        rule(
            self.workers >= 1,
            "workers must be at least 1, not 0".to_owned(),
        );
        rule(
            self.epochs >= 1,
            "epochs must be at least 1, not 0".to_owned(),
        );
        rule(
            self.patience >= 1,
            "patience must be at least 1, not 0; to never stop early, give as many as epochs"
                .to_owned(),
        );
        rule(
            (1..=self.workers.max(1)).contains(&self.min_workers),
            format!(
                "min-workers must be from 1 to workers {}, not {}",
                self.workers, self.min_workers
            ),
        );
        rule(
            self.max_workers == self.workers
                || (self.workers..=self.global_batch).contains(&self.max_workers),
            format!(
                "max-workers must be from workers {} to global-batch {}, not {}",
                self.workers, self.global_batch, self.max_workers
            ),
        );
        rule(
            !self.stall_timeout.is_zero() && !self.grace.is_zero(),
            "stall-timeout and grace must be at least 1 second".to_owned(),
        );
        rule(
            [
                self.rejoin_timeout,
                self.stall_timeout,
                self.hold_timeout,
                self.grace,
            ]
            .iter()
            .all(|timeout| *timeout <= MAX_TIMEOUT),
            "rejoin-timeout, stall-timeout, hold-timeout and grace must fit a day".to_owned(),
        );
        rule(
            self.min_delta >= 0.0 && self.min_delta.is_finite(),
            format!(
                "min-delta must be 0 or a positive number, not {}",
                self.min_delta
            ),
        );
        rule(
            self.global_batch >= self.workers.max(1),
            format!(
                "global-batch {} is smaller than workers {}: each worker needs at least one \
                 sample a step",
                self.global_batch, self.workers
            ),
        );
        rule(
            (32..=MAX_IMAGE_SIZE).contains(&self.image_size),
            format!(
                "image-size must be from 32 to {MAX_IMAGE_SIZE}, not {}: the network divides it by 32",
                self.image_size
            ),
        );
        rule(
            self.image_size != 32 || self.batch_norm == BatchNorm::Frozen,
            "image-size 32 leaves one pixel to the last layers, of which a slice of one sample \
             has no variance; use 33 or more, or batch-norm frozen"
                .to_owned(),
        );
        rule(
            self.limit_per_class
                .is_none_or(|limit| u32::try_from(limit).is_ok())
                && self.collective_timeout <= MAX_TIMEOUT,
            "limit-per-class and collective-timeout must fit 32 bits and a day".to_owned(),
        );
        rule(
            self.validation_fraction > 0.0 && self.validation_fraction < 1.0,
            format!(
                "validation-fraction must lie between 0 and 1, both excluded, not {}",
                self.validation_fraction
            ),
        );
        rule(
            self.data_bandwidth > 0,
            "data-bandwidth must be at least 1 MiB a second, not 0".to_owned(),
        );
        rule(
            self.limit_per_class != Some(0),
            "limit-per-class must be at least 1, not 0; leave it out to use all".to_owned(),
        );
        for (group, rate) in self.layer_lr.by_group() {
            rule(
                rate >= 0.0 && rate.is_finite(),
                format!("layer-lr of {group} must be 0 or a positive number, not {rate}"),
            );
        }
        rule(
            self.layer_lr.0.iter().any(|rate| *rate != 0.0),
            "layer-lr is 0 for every group, so nothing would be trained".to_owned(),
        );
        rule(
            self.lr_step_epochs >= 1,
            "lr-step-epochs must be at least 1, not 0".to_owned(),
        );
        rule(
            self.lr_gamma > 0.0 && self.lr_gamma <= 1.0,
            format!(
                "lr-gamma must be above 0 and at most 1, not {}",
                self.lr_gamma
            ),
        );
        rule(
            self.warmup_epochs < self.epochs.max(1),
            format!(
                "warmup-epochs {} leaves no epoch of {} at full learning rate",
                self.warmup_epochs, self.epochs
            ),
        );
        rule(
            self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
            format!(
                "weight-decay must be 0 or a positive number, not {}",
                self.weight_decay
            ),
        );
        rule(
            self.threads_per_worker != Some(0),
            "threads-per-worker must be at least 1, not 0; leave it out to divide the machine's"
                .to_owned(),
        );
        rule(
            i64::try_from(self.seed).is_ok(),
            format!(
                "seed {} is larger than TOML's integers, at most {}",
                self.seed,
                i64::MAX
            ),
        );
        rule(
            !self.collective_timeout.is_zero(),
            "collective-timeout must be at least 1 second, not 0".to_owned(),
        );
        rule(
            self.metrics_listen != self.listen || self.listen.port() == 0,
            format!("listen and metrics-listen are both {}", self.listen),
        );
        let traces_to = self.otlp_endpoint.as_deref();
        rule(
            traces_to.is_none_or(common::trace::is_endpoint),
            format!(
                "otlp-endpoint must be http://HOST:PORT, where a collector takes OTLP over gRPC, \
                 not {}",
                traces_to.unwrap_or_default()
            ),
        );
        let tls = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-ca", &self.tls_ca),
        ];
        let missing: Vec<_> = tls
            .iter()
            .filter(|(_, file)| file.is_none())
            .map(|(flag, _)| *flag)
            .collect();
        let partly = !missing.is_empty() && missing.len() < tls.len();
        rule(
            !partly,
            format!(
                "--tls-cert, --tls-key and --tls-ca belong together; add {}",
                missing.join(" and ")
            ),
        );
        rule(
            partly || Policy::of(self).allows(self.listen),
            format!(
                "listen {} can be reached from other machines: give --tls-cert, --tls-key and \
                 --tls-ca, or --token-file, so that nobody joins uninvited, or --insecure to let \
                 anybody",
                self.listen
            ),
        );
        if broken.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(broken))
        }
    }
}
