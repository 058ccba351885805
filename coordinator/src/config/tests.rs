//! Precedence, spelling, rules and the round trip of a saved configuration.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use super::*;
use crate::cli::args::Cli;

struct Case {
    root: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
}

impl Case {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
        }
    }

    /// `flags` as on a command line.
    fn load(&self, file: Option<&str>, flags: &str) -> Result<Loaded, ConfigError> {
        let file = file.map(|text| {
            let path = self.root.path().join("run.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let arguments = std::iter::once("coordinator").chain(flags.split_whitespace());
        RunConfig::load(&Sources {
            file,
            environment: self.environment.clone(),
            flags: Cli::try_parse_from(arguments).unwrap().settings,
            root: self.root.path().to_owned(),
        })
    }
}

fn refusal(file: Option<&str>, flags: &str) -> String {
    let message = Case::new().load(file, flags).unwrap_err().to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() {
    let mut case = Case::new();
    let file = Some("patience = 4\nepochs = 5\nglobal-batch = 64\nno-spawn = true");
    case.environment = [
        ("FINETUNE_EPOCHS", "6"),
        ("FINETUNE_GLOBAL_BATCH", "96"),
        ("FINETUNE_SEED", ""),
        ("FINETUNE_IMAGE_SZE", "1"),
        ("FINETUNE_UI_PORT_80_TCP", "x"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .to_vec();
    let Loaded { config, notes } = case
        .load(file, "--global-batch 128 --no-spawn=false")
        .unwrap();
    assert_eq!(
        (
            config.global_batch,
            config.epochs,
            config.patience,
            config.seed,
            config.no_spawn
        ),
        (128, 6, 4, 42, false)
    );
    assert!(
        notes[0].contains("FINETUNE_IMAGE_SZE; did you mean FINETUNE_IMAGE_SIZE?"),
        "{notes:?}"
    );
    assert!(
        !notes.iter().any(|note| note.contains("UI_PORT")),
        "{notes:?}"
    );
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_where_it_would_count() {
    let unreadable = || OsString::from_vec(b"\xff".to_vec());
    let mut case = Case::new();
    let mut named = OsString::from("FINETUNE_");
    named.push(unreadable());
    for (key, value) in [
        (OsString::from("FINETUNE_EPOCHS"), unreadable()),
        (named, "1".into()),
    ] {
        case.environment = vec![(key, value)];
        let refused = case.load(None, "").unwrap_err().to_string();
        assert!(
            refused.contains("FINETUNE_") && refused.contains("UTF-8"),
            "{refused}"
        );
    }
    case.environment = vec![("PATH".into(), unreadable())];
    case.load(None, "").unwrap();
}

#[test]
fn credentials_have_the_same_words_everywhere() {
    let mut case = Case::new();
    case.environment = [
        ("FINETUNE_TLS_KEY", "key.pem"),
        ("FINETUNE_TLS_SERVER_NAME", "for the worker"),
        ("FINETUNE_INSECURE", "false"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .to_vec();
    let file = Some("tls-cert = \"cert.pem\"\ntoken-file = \"token\"\nlisten = \"0.0.0.0:7\"");
    let Loaded { config, notes } = case.load(file, "--tls-ca ca.pem").unwrap();
    let files = config.tls_files().unwrap();
    assert_eq!(
        [&files.cert, &files.key, &files.ca],
        ["cert.pem", "key.pem", "ca.pem"].map(Path::new)
    );
    assert_eq!(config.token_file.as_deref(), Some(Path::new("token")));
    assert!(!notes.iter().any(|note| note.contains("TLS")), "{notes:?}");
}

#[test]
fn the_demo_set_changes_defaults_but_nothing_that_was_given() {
    let case = Case::new();
    let Loaded { config, notes } = case.load(Some("epochs = 15"), "").unwrap();
    assert_eq!(config.data, DataSource::Demo);
    assert_eq!(
        (config.image_size, config.global_batch, config.epochs),
        (48, 64, 15)
    );
    assert_eq!(config.layer_lr, layer_lr::SCRATCH);
    assert_eq!(
        notes
            .iter()
            .filter(|note| note.contains("demo set"))
            .count(),
        1
    );

    for path in ["data/caltech101/101_ObjectCategories", DEFAULT_WEIGHTS] {
        std::fs::create_dir_all(case.root.path().join(path)).unwrap();
    }
    let Loaded { config, .. } = case.load(None, "").unwrap();
    assert_eq!(config.data, DataSource::Directory(DEFAULT_DATA.into()));
    assert_eq!(config.pretrained, Some(DEFAULT_WEIGHTS.into()));
    assert_eq!(
        (config.image_size, config.global_batch, config.epochs),
        (224, 128, 15)
    );
    assert_eq!(config.layer_lr, layer_lr::NOTEBOOK);
}

#[test]
fn misspelt_keys_are_refused_with_the_nearest_one() {
    for (file, expected) in [
        (
            "global-bacth = 3",
            "unknown key `global-bacth`; did you mean `global-batch`?",
        ),
        ("global_batch = 3", "did you mean `global-batch`?"),
        ("xyzzy = 3", "`coordinator --help` lists the known ones"),
        ("epochs = 3\nepochs 4", "line 2"),
        ("epochs = \"many\"", "epochs"),
        (
            "device = \"gpu\"",
            "`gpu` is none of auto, cpu, cuda for key `device` in",
        ),
        ("epochs = -1", "epochs"),
    ] {
        let message = refusal(Some(file), "");
        assert!(message.contains(expected), "{file}: {message}");
        assert!(message.contains("run.toml"), "{file}: {message}");
    }
}

#[test]
fn files_and_flags_use_the_same_words() {
    fn check<T: clap::ValueEnum + TryFrom<String, Error = String> + Copy>() {
        for choice in T::value_variants() {
            let word = choice.to_possible_value().unwrap().get_name().to_owned();
            assert!(T::try_from(word.clone()).is_ok(), "{word}");
        }
    }
    check::<LrSchedule>();
    check::<BatchNorm>();
    check::<Device>();
    check::<Precision>();
    check::<LogFormat>();
}

#[test]
fn every_rule_refuses_what_it_forbids() {
    for (flags, expected) in [
        ("--workers 0", "workers must be at least 1"),
        (
            "--workers 3 --global-batch 2",
            "global-batch 2 is smaller than workers 3",
        ),
        ("--epochs 0", "epochs must be at least 1"),
        ("--patience 0", "patience must be at least 1"),
        ("--min-delta=-1", "min-delta must be 0 or"),
        ("--min-delta nan", "min-delta must be 0 or"),
        ("--image-size 31", "image-size must be from 32 to 4096"),
        ("--image-size 4097", "image-size must be from 32 to 4096"),
        ("--image-size 32", "leaves one pixel to the last layers"),
        (
            "--validation-fraction 1",
            "validation-fraction must lie between",
        ),
        (
            "--validation-fraction nan",
            "validation-fraction must lie between",
        ),
        ("--limit-per-class 0", "limit-per-class must be at least 1"),
        ("--layer-lr fc=-1", "layer-lr of fc"),
        ("--layer-lr uniform=0", "nothing would be trained"),
        ("--layer-lr notebok", "neither a preset"),
        ("--lr-step-epochs 0", "lr-step-epochs must be"),
        ("--lr-gamma 0", "lr-gamma must be"),
        (
            "--warmup-epochs 3 --epochs 3",
            "warmup-epochs 3 leaves no epoch",
        ),
        ("--weight-decay inf", "weight-decay must be"),
        ("--collective-timeout 0", "collective-timeout must be"),
        (
            "--collective-timeout 60",
            "collective-timeout 60 must be shorter than stall-timeout 60",
        ),
        ("--grace 0", "grace must be from 1 to 86400 seconds"),
        ("--hold-timeout 86401", "hold-timeout must be from 0"),
        ("--threads-per-worker 0", "threads-per-worker must be"),
        (
            "--threads-per-worker 8193",
            "threads-per-worker must be at most 8192",
        ),
        ("--seed 9223372036854775808", "larger than TOML's integers"),
        (
            "--listen 0.0.0.0:9 --metrics-listen 0.0.0.0:9",
            "are both 0.0.0.0:9",
        ),
        (
            "--listen 0.0.0.0:7000",
            "listen 0.0.0.0:7000 can be reached from other machines: give --tls-cert, --tls-key \
             and --tls-ca, or --token-file, so that only your workers join, or --insecure",
        ),
        (
            "--otlp-endpoint https://collector:4317",
            "otlp-endpoint must be http://HOST:PORT",
        ),
        (
            "--tls-cert a --listen [::]:7000",
            "belong together; add --tls-key and --tls-ca",
        ),
    ] {
        let message = refusal(None, flags);
        assert!(message.contains(expected), "{flags}: {message}");
    }
    let both = refusal(None, "--epochs 0 --image-size 8");
    assert!(
        both.contains("epochs must") && both.contains("image-size must"),
        "{both}"
    );
}

#[test]
fn a_saved_configuration_repeats_itself() {
    let case = Case::new();
    let flags = "--workers 2 --layer-lr fc=0.1 --limit-per-class 9 --lr-schedule cosine \
                 --metrics-linger 7 --precision bf16 --listen=0.0.0.0:7000 --token-file=token \
                 --tls-cert=cert --tls-key=key --tls-ca=ca --insecure \
                 --otlp-endpoint=http://collector:4317";
    let first = case.load(None, flags).unwrap().config;
    let saved = first.to_toml().unwrap();
    // What is saved must not depend on files that appear later.
    std::fs::create_dir_all(case.root.path().join(DEFAULT_DATA)).unwrap();
    let mut second = case.load(Some(&saved), "").unwrap().config;
    second.run_dir.clone_from(&first.run_dir);
    assert_eq!(second, first, "{saved}");
}

#[test]
fn a_resumed_run_may_change_what_does_not_move_its_steps() {
    let case = Case::new();
    let first = case.load(None, "--workers 2").unwrap().config;
    let saved = first.to_toml().unwrap();
    let resumed = |flags: &str| case.load(Some(&saved), flags).unwrap().config;
    let more = resumed("--workers 4 --patience 9 --layer-lr fc=0.1");
    assert_eq!((more.workers, more.max_workers), (4, 4));
    more.check_continues(&first).unwrap();

    let other = resumed("--global-batch 77 --seed 5");
    let message = other.check_continues(&first).unwrap_err().to_string();
    for part in ["global-batch is ", "cannot become 77", "seed is 42"] {
        assert!(message.contains(part), "{message}");
    }
    for (key, value) in [
        ("image-size", "64"),
        ("validation-fraction", "0.3"),
        ("limit-per-class", "3"),
        ("batch-norm", "frozen"),
    ] {
        let other = resumed(&format!("--{key} {value}"));
        let message = other.check_continues(&first).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{key} is ")), "{message}");
        assert!(message.contains(&format!("become {value};")), "{message}");
    }
}
