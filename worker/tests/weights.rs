//! Weight files: those of torch.save (`fixtures/record_weights.py`), invalid ones, and those that
//! this project writes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use worker::model::weights::{self, Cause};
use worker::model::{Head, ResNet18, Statistics};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn read(name: &str) -> BTreeMap<String, Tensor> {
    weights::read(&fixture(name), None)
        .unwrap()
        .into_iter()
        .collect()
}

/// The tensor that most recorded files hold: 2 rows of 0, 0.25, … 1.25.
fn rows() -> Tensor {
    Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]) / 4.0
}

fn refusal(name: &str) -> String {
    weights::read(&fixture(name), None).unwrap_err().to_string()
}

#[test]
fn a_module_state_dict_keeps_order_names_and_counters() {
    let entries = weights::read(&fixture("module.pth"), None).unwrap();
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "weight",
            "bias",
            "running_mean",
            "running_var",
            "num_batches_tracked"
        ]
    );
    assert_eq!(entries[0].1, Tensor::from_slice(&[0.5f32, 1.0, 1.5]));
    assert_eq!(
        (entries[4].1.kind(), entries[4].1.size()),
        (Kind::Int64, vec![])
    );
}

#[test]
fn views_parameters_wrappers_and_protocol_4_give_the_same_numbers() {
    let views = read("views.pth");
    assert_eq!(views["transposed"], rows().tr());
    assert_eq!(views["upper"], rows().get(0));
    assert_eq!(views["lower"], rows().get(1));
    let parameters = read("parameters.pth");
    assert_eq!(
        (&parameters["weight"], &parameters["bias"]),
        (&rows(), &rows().get(0))
    );
    assert_eq!(
        read("checkpoint.pth"),
        BTreeMap::from([("weight".to_owned(), rows())])
    );
    assert_eq!(read("protocol4.pth")["weight"], rows());
}

#[test]
fn types_stay_as_stored() {
    let types = read("types.pth");
    for (name, kind) in [
        ("half", Kind::Half),
        ("bfloat16", Kind::BFloat16),
        ("double", Kind::Double),
    ] {
        assert_eq!(types[name].kind(), kind);
        assert_eq!(types[name].to_kind(Kind::Float), rows());
    }
    assert_eq!(types["long"], Tensor::from_slice(&[1i64, -(1 << 40)]));
    assert_eq!(types["scalar"].int64_value(&[]), 7);
    assert_eq!(types["empty"].size(), [0, 3]);
}

#[test]
fn refusals_name_the_file_and_the_way_out() {
    let legacy = refusal("legacy.pth");
    assert!(legacy.contains("legacy.pth: in the old format"), "{legacy}");
    assert!(legacy.contains("torch.save(torch.load("), "{legacy}");
    let whole = refusal("whole_model.pth");
    assert!(whole.contains("torch.nn.modules.linear.Linear"), "{whole}");
    assert!(whole.contains("torch.save(model.state_dict()"), "{whole}");
    let absent = refusal("absent.pth");
    assert!(
        absent.contains("absent.pth: cannot be read: No such file"),
        "{absent}"
    );
    let json = refusal("parity.json");
    assert!(
        json.contains("neither a .pth of torch.save nor a .safetensors"),
        "{json}"
    );
}

#[test]
fn a_download_cut_short_or_a_flipped_bit_is_an_error() {
    let bytes = std::fs::read(fixture("views.pth")).unwrap();
    let cut = weights::parse(&bytes[..bytes.len() - 100]);
    assert!(matches!(cut, Err(Cause::Zip(_))), "{cut:?}");
    let place = bytes
        .windows(4)
        .position(|b| b == 1.25f32.to_le_bytes())
        .unwrap();
    let mut flipped = bytes;
    flipped[place] ^= 1;
    let message = weights::parse(&flipped).unwrap_err().to_string();
    assert!(
        message.contains("data/0 in the archive cannot be read"),
        "{message}"
    );
}

/// `views.pth` with another pickle.
fn with_pickle(change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let bytes = std::fs::read(fixture("views.pth")).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut changed = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        if file.name().ends_with("data.pkl") {
            content = change(content);
        }
        changed.start_file(file.name(), stored).unwrap();
        changed.write_all(&content).unwrap();
    }
    changed.finish().unwrap().into_inner()
}

#[test]
fn a_tensor_beyond_its_storage_is_refused() {
    // Size (3, 2) of six elements becomes (3, 200), then (200, 2), whose strides are (1, 3).
    for (from, to) in [
        (b"K\x03K\x02\x86", b"K\x03K\xc8\x86"),
        (b"K\x03K\x02\x86", b"K\xc8K\x02\x86"),
    ] {
        let bytes = with_pickle(|mut pickle| {
            let place = pickle.windows(from.len()).position(|b| b == from).unwrap();
            pickle[place..place + to.len()].copy_from_slice(to);
            pickle
        });
        let error = weights::parse(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "transposed reaches outside its storage");
    }
}

proptest! {
    #[test]
    fn no_change_of_a_pickle_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let bytes = with_pickle(|mut pickle| {
            for (place, byte) in &changes {
                let place = place.index(pickle.len());
                pickle[place] = *byte;
            }
            pickle
        });
        // Whatever still reads is small: views never have more elements than their storage.
        for (_, tensor) in weights::parse(&bytes).unwrap_or_default() {
            prop_assert!(tensor.numel() <= 6);
            prop_assert!(tensor.contiguous().isfinite().numel() <= 6);
        }
    }

    #[test]
    fn no_change_of_a_file_panics(
        pth in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match pth {
            true => std::fs::read(fixture("types.pth")).unwrap(),
            false => weights::to_safetensors(
                &[("a".to_owned(), rows()), ("b".to_owned(), rows().get(0))],
                &BTreeMap::new(),
            ).unwrap(),
        };
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
        let _ = weights::parse(&bytes);
    }

    #[test]
    fn no_bytes_panic(
        start in prop::sample::select(vec![&b""[..], b"PK\x03\x04", b"\x80\x02", b"\x40\0\0\0\0\0\0\0{"]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = weights::parse(&[start, &rest].concat());
    }
}

#[test]
fn a_saved_network_loads_into_another_and_a_foreign_head_is_passed_over() {
    let (source, mut same) = (
        ResNet18::new(4, Device::Cpu, 1),
        ResNet18::new(4, Device::Cpu, 2),
    );
    let images = Tensor::ones([2, 3, 32, 32], (Kind::Float, Device::Cpu));
    let before = source.forward(&images, Statistics::Running);
    assert_ne!(before, same.forward(&images, Statistics::Running));
    let file = weights::to_safetensors(&source.state(), &BTreeMap::new()).unwrap();
    assert_eq!(
        same.load(weights::parse(&file).unwrap()).unwrap(),
        Head::Loaded
    );
    assert_eq!(before, same.forward(&images, Statistics::Running));

    let mut other = ResNet18::new(5, Device::Cpu, 3);
    let fresh = other.parameters().last().unwrap().tensor.copy();
    let head = other.load(weights::parse(&file).unwrap()).unwrap();
    assert_eq!(head, Head::Kept { classes_in_file: 4 });
    let (ours, theirs) = (other.parameters(), source.parameters());
    assert_eq!(ours[0].tensor, theirs[0].tensor);
    assert_eq!(ours.last().unwrap().tensor, fresh);
}

#[test]
fn a_network_of_another_depth_is_refused_with_every_difference() {
    let mut model = ResNet18::new(4, Device::Cpu, 1);
    let mut entries = model.state();
    entries.retain(|(name, _)| !name.starts_with("layer4.1.conv"));
    entries.push((
        "layer1.2.conv1.weight".to_owned(),
        Tensor::zeros([8], (Kind::Float, Device::Cpu)),
    ));
    entries[0].1 = Tensor::zeros([64, 1, 7, 7], (Kind::Float, Device::Cpu));
    let error = model.load(entries).unwrap_err().to_string();
    for part in [
        "missing: layer4.1.conv1.weight [512, 512, 3, 3], layer4.1.conv2.weight",
        "unexpected: layer1.2.conv1.weight [8]",
        "conv1.weight [64, 1, 7, 7] instead of [64, 3, 7, 7]",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
