//! The effective settings of a run as a layer again: what `config.toml` in its directory says.

use std::path::PathBuf;

use super::{ConfigError, DataSource, RunConfig, Settings, layer_lr};

impl TryFrom<&RunConfig> for Settings {
    type Error = ConfigError;

    /// All but the run directory, which belongs to one run only.
    fn try_from(config: &RunConfig) -> Result<Self, ConfigError> {
        let text = |path: &PathBuf| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| ConfigError::Unwritable(format!("{} is not UTF-8", path.display())))
        };
        Ok(Self {
            workers: Some(config.workers),
            no_spawn: Some(config.no_spawn),
            run_dir: None,
            seed: Some(config.seed),
            data: Some(match &config.data {
                DataSource::Demo => "demo".to_owned(),
                DataSource::Directory(path) => text(path)?,
            }),
            image_size: Some(config.image_size),
            validation_fraction: Some(config.validation_fraction),
            limit_per_class: config.limit_per_class,
            strict_data: Some(config.strict_data),
            data_bandwidth: Some(config.data_bandwidth >> 20),
            pretrained: Some(match &config.pretrained {
                None => "none".to_owned(),
                Some(path) => text(path)?,
            }),
            epochs: Some(config.epochs),
            patience: Some(config.patience),
            min_delta: Some(config.min_delta),
            global_batch: Some(config.global_batch),
            layer_lr: Some(layer_lr::format(config.layer_lr)),
            lr_schedule: Some(config.lr_schedule),
            lr_step_epochs: Some(config.lr_step_epochs),
            lr_gamma: Some(config.lr_gamma),
            warmup_epochs: Some(config.warmup_epochs),
            weight_decay: Some(config.weight_decay),
            batch_norm: Some(config.batch_norm),
            device: Some(config.device),
            precision: Some(config.precision),
            threads_per_worker: config.threads_per_worker,
            worker_binary: config.worker_binary.clone(),
            collective_timeout: Some(config.collective_timeout.as_secs()),
            min_workers: Some(config.min_workers),
            // As many as workers unless told otherwise, also when a resumed run has more.
            max_workers: (config.max_workers != config.workers).then_some(config.max_workers),
            rejoin_timeout: Some(config.rejoin_timeout.as_secs()),
            max_restarts: Some(config.max_restarts),
            stall_timeout: Some(config.stall_timeout.as_secs()),
            checkpoint_every: Some(config.checkpoint_every.to_string()),
            hold_timeout: Some(config.hold_timeout.as_secs()),
            grace: Some(config.grace.as_secs()),
            listen: Some(config.listen),
            tls_cert: config.tls_cert.clone(),
            tls_key: config.tls_key.clone(),
            tls_ca: config.tls_ca.clone(),
            token_file: config.token_file.clone(),
            insecure: Some(config.insecure),
            metrics_listen: config.metrics_listen_asked.then_some(config.metrics_listen),
            metrics_linger: config.metrics_linger.map(|bound| bound.as_secs()),
            otlp_endpoint: config.otlp_endpoint.clone(),
            log_format: Some(config.log_format),
        })
    }
}
