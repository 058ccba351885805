//! Decides what the sources leave open: defaults, the demo set's own defaults, and every "auto"
//! that the coordinator can decide. Each decision becomes one line for the user. It checks only
//! whether files exist; it opens none.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{
    BatchNorm, ConfigError, DEFAULT_DATA, DEFAULT_RUNS, DEFAULT_WEIGHTS, DataSource, Device,
    GroupLrs, Loaded, LogFormat, LrSchedule, Precision, RunConfig, Settings, checkpoint_every,
    exists, layer_lr,
};

/// Defaults that depend on the data set: the recipe's, and smaller ones for the demo set, so
/// that it ends in about a minute on two processors. Only values that no source gives are replaced.
struct SetDefaults {
    image_size: u32,
    global_batch: usize,
    epochs: u32,
    lr_schedule: LrSchedule,
}

const RECIPE: SetDefaults = SetDefaults {
    image_size: 224,
    global_batch: 128,
    epochs: 15,
    lr_schedule: LrSchedule::Constant,
};
const DEMO: SetDefaults = SetDefaults {
    image_size: 48,
    global_batch: 64,
    epochs: 8,
    lr_schedule: LrSchedule::Cosine,
};

/// The folder of classes, which `fetch` creates only when it is complete.
const FETCHED: &str = "data/caltech101/101_ObjectCategories";

const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
/// Where `/metrics` and `/healthz` are by default.
pub(crate) const DEFAULT_METRICS_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9095);

pub(super) fn resolve(mut settings: Settings, root: &Path) -> Result<Loaded, ConfigError> {
    let mut notes = Vec::new();
    let data = settings.data.get_or_insert_with(|| data(root, &mut notes));
    let data = match data.as_str() {
        "demo" => DataSource::Demo,
        folder => DataSource::Directory(folder.into()),
    };
    let given = settings.pretrained.take().filter(|text| text != "auto");
    let weights = settings.pretrained.insert(match given {
        Some(given) => given,
        None => pretrained(root, &mut notes),
    });
    let pretrained = (weights.as_str() != "none").then(|| PathBuf::from(weights.as_str()));
    let given = settings.layer_lr.as_deref();
    let layer_lr = layer_lr(given, pretrained.is_some(), &mut notes)?;
    settings.layer_lr = Some(layer_lr::format(layer_lr));
    let config = effective(settings, root, data, pretrained, layer_lr)?;
    Ok(Loaded { config, notes })
}

/// The images, where no source names them.
fn data(root: &Path, notes: &mut Vec<String>) -> String {
    if exists(root, FETCHED) {
        notes.push(format!(
            "data: {DEFAULT_DATA} (found; --data chooses another)"
        ));
        return DEFAULT_DATA.to_owned();
    }
    notes.push(format!(
        "data: the built-in demo set, as there is no {DEFAULT_DATA} (`coordinator fetch \
         caltech101` gets it; --data chooses another)"
    ));
    "demo".to_owned()
}

/// The weights, where no source names them.
fn pretrained(root: &Path, notes: &mut Vec<String>) -> String {
    if exists(root, DEFAULT_WEIGHTS) {
        notes.push(format!("weights: {DEFAULT_WEIGHTS} (found)"));
        return DEFAULT_WEIGHTS.to_owned();
    }
    notes.push(format!(
        "weights: random, as there is no {DEFAULT_WEIGHTS} (`coordinator fetch weights` gets it)"
    ));
    "none".to_owned()
}

fn layer_lr(
    given: Option<&str>,
    pretrained: bool,
    notes: &mut Vec<String>,
) -> Result<GroupLrs, ConfigError> {
    let (base, why) = if pretrained {
        (
            layer_lr::NOTEBOOK,
            "notebook ladder, as the weights are pretrained",
        )
    } else {
        (
            layer_lr::SCRATCH,
            "1e-3 for all layers, as the weights start random",
        )
    };
    match given {
        None | Some("auto") => {
            notes.push(format!("learning rates: {why}"));
            Ok(base)
        }
        Some(text) => layer_lr::parse(text, base),
    }
}

/// The settings that are given, and the default of each that is not. With the defaults filled in,
/// `given` is what a repetition is given.
fn effective(
    mut given: Settings,
    root: &Path,
    data: DataSource,
    pretrained: Option<PathBuf>,
    layer_lr: GroupLrs,
) -> Result<RunConfig, ConfigError> {
    let sizes = match data {
        DataSource::Demo => DEMO,
        DataSource::Directory(_) => RECIPE,
    };
    let workers = *given.workers.get_or_insert(1);
    let max_workers = given.max_workers.unwrap_or(workers);
    // As many as workers unless told otherwise, also when a resumed run has more.
    given.max_workers = Some(max_workers).filter(|most| *most != workers);
    Ok(RunConfig {
        workers,
        no_spawn: *given.no_spawn.get_or_insert(false),
        data,
        pretrained,
        epochs: *given.epochs.get_or_insert(sizes.epochs),
        patience: *given.patience.get_or_insert(3),
        min_delta: *given.min_delta.get_or_insert(0.0),
        global_batch: *given.global_batch.get_or_insert(sizes.global_batch),
        image_size: *given.image_size.get_or_insert(sizes.image_size),
        validation_fraction: *given.validation_fraction.get_or_insert(0.2),
        limit_per_class: given.limit_per_class,
        layer_lr,
        lr_schedule: *given.lr_schedule.get_or_insert(sizes.lr_schedule),
        lr_step_epochs: *given.lr_step_epochs.get_or_insert(5),
        lr_gamma: *given.lr_gamma.get_or_insert(0.1),
        warmup_epochs: *given.warmup_epochs.get_or_insert(0),
        weight_decay: *given.weight_decay.get_or_insert(0.0),
        batch_norm: *given.batch_norm.get_or_insert(BatchNorm::PerRank),
        device: *given.device.get_or_insert(Device::Auto),
        precision: *given.precision.get_or_insert(Precision::Auto),
        threads_per_worker: given.threads_per_worker,
        seed: *given.seed.get_or_insert(42),
        run_dir: given
            .run_dir
            .take()
            .unwrap_or_else(|| unused_run_dir(root, SystemTime::now())),
        listen: *given.listen.get_or_insert(DEFAULT_LISTEN.into()),
        tls_cert: given.tls_cert.clone(),
        tls_key: given.tls_key.clone(),
        tls_ca: given.tls_ca.clone(),
        token_file: given.token_file.clone(),
        insecure: *given.insecure.get_or_insert(false),
        metrics_listen: given
            .metrics_listen
            .unwrap_or_else(|| DEFAULT_METRICS_LISTEN.into()),
        metrics_listen_asked: given.metrics_listen.is_some(),
        metrics_linger: given.metrics_linger.map(Duration::from_secs),
        strict_data: *given.strict_data.get_or_insert(false),
        data_bandwidth: given
            .data_bandwidth
            .get_or_insert(100)
            .saturating_mul(1 << 20),
        worker_binary: given.worker_binary.clone(),
        otlp_endpoint: given.otlp_endpoint.clone(),
        log_format: *given.log_format.get_or_insert(LogFormat::Text),
        min_workers: *given.min_workers.get_or_insert(1),
        max_workers,
        rejoin_timeout: Duration::from_secs(*given.rejoin_timeout.get_or_insert(30)),
        max_restarts: *given.max_restarts.get_or_insert(3),
        stall_timeout: Duration::from_secs(*given.stall_timeout.get_or_insert(60)),
        checkpoint_every: checkpoint_every::parse(
            given
                .checkpoint_every
                .get_or_insert_with(|| "epoch".to_owned()),
        )?,
        hold_timeout: Duration::from_secs(*given.hold_timeout.get_or_insert(60)),
        grace: Duration::from_secs(*given.grace.get_or_insert(20)),
        collective_timeout: Duration::from_secs(*given.collective_timeout.get_or_insert(20)),
        saved: given,
    })
}

/// `runs/<UTC time>`, with a number where two runs start in the same second.
fn unused_run_dir(root: &Path, now: SystemTime) -> PathBuf {
    let name = format!("{DEFAULT_RUNS}/{}", timestamp(now));
    let mut candidate = name.clone();
    let mut number = 2;
    while exists(root, &candidate) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    PathBuf::from(candidate)
}

/// `20260131-235959` in UTC.
fn timestamp(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y%m%d-%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn run_directories_carry_the_time_and_never_collide() {
        let later = UNIX_EPOCH + Duration::from_secs(1_767_225_599);
        assert_eq!(timestamp(later), "20251231-235959");
        let root = tempfile::tempdir().unwrap();
        let first = unused_run_dir(root.path(), UNIX_EPOCH);
        assert_eq!(first, Path::new("runs/19700101-000000"));
        std::fs::create_dir_all(root.path().join(first)).unwrap();
        assert_eq!(
            unused_run_dir(root.path(), UNIX_EPOCH),
            Path::new("runs/19700101-000000-2")
        );
    }
}
