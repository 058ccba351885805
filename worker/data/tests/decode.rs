//! The decoder against Pillow and torchvision, by what `fixtures/record_decode.py` recorded,
//! and against bytes that are not an image.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use worker_data::decode::{DecodeError, decode, decode_bytes};

/// Grey levels, averaged over an image. The promise is one; the decoders differ in the
/// rounding of the inverse DCT and of chroma, which costs half of that at most.
const LIMIT: f64 = 0.6;

#[derive(Deserialize)]
struct Index {
    drawn: Vec<Recorded>,
    broken: Vec<EpochResult>,
    photographs: Vec<Photograph>,
}

/// `name.rgb` holds every `stride`-th pixel of every `stride`-th row at this size.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    size: u32,
    stride: usize,
}

#[derive(Deserialize)]
struct EpochResult {
    name: String,
    accepted: bool,
}

#[derive(Deserialize)]
struct Photograph {
    path: String,
    sha256: String,
    #[serde(flatten)]
    recorded: Recorded,
}

static INDEX: LazyLock<Index> =
    LazyLock::new(|| serde_json::from_slice(&fs::read(fixture("index.json")).unwrap()).unwrap());

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/decode")
        .join(name)
}

impl Recorded {
    /// Mean and largest difference in grey levels between `ours` and the recorded pixels.
    fn differences(&self, ours: &[u8]) -> (f64, u8) {
        let side = self.size as usize;
        assert_eq!(ours.len(), side * side * 3);
        let picked = ours
            .chunks_exact(side * 3)
            .step_by(self.stride)
            .flat_map(|row| row.chunks_exact(3).step_by(self.stride))
            .flatten();
        let theirs = fs::read(fixture(&format!("{}.rgb", self.name))).unwrap();
        assert_eq!(theirs.len(), 3 * side.div_ceil(self.stride).pow(2));
        let off: Vec<u8> = picked.zip(&theirs).map(|(a, b)| a.abs_diff(*b)).collect();
        let sum: f64 = off.iter().map(|&level| f64::from(level)).sum();
        (
            sum / off.len() as f64,
            off.iter().copied().max().unwrap_or(0),
        )
    }
}

#[test]
fn drawn_jpegs_of_every_kind_come_out_as_pillow_makes_them() {
    for recorded in &INDEX.drawn {
        let ours = decode(&fixture(&format!("{}.jpg", recorded.name)), recorded.size).unwrap();
        let (mean, max) = recorded.differences(&ours);
        println!("{}: mean {mean:.3} max {max}", recorded.name);
        assert!(
            mean <= LIMIT,
            "{} is {mean:.3} off on average",
            recorded.name
        );
    }
}

/// Needs the photographs: `CALTECH101`, or `shared/caltech101` beside the checkout.
#[test]
fn photographs_come_out_as_torchvision_makes_them() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/caltech101");
    let root = std::env::var_os("CALTECH101").map_or_else(beside, PathBuf::from);
    for photograph in &INDEX.photographs {
        let path = root.join("101_ObjectCategories").join(&photograph.path);
        let Ok(jpeg) = fs::read(&path) else {
            println!("skipped: no {}", path.display());
            continue;
        };
        assert_eq!(
            format!("{:x}", Sha256::digest(&jpeg)),
            photograph.sha256,
            "{path:?}"
        );
        let recorded = &photograph.recorded;
        let (mean, max) = recorded.differences(&decode_bytes(&jpeg, recorded.size).unwrap());
        println!(
            "{} at {}: mean {mean:.3} max {max}",
            photograph.path, recorded.size
        );
        assert!(
            mean <= 1.0,
            "{} is {mean:.3} off on average",
            photograph.path
        );
    }
}

#[test]
fn broken_files_are_refused_where_pillow_refuses_them_each_in_its_own_words() {
    let epoch_result = |name: &str| decode(&fixture(&format!("{name}.jpg")), 32);
    for EpochResult { name, accepted } in &INDEX.broken {
        assert_eq!(
            epoch_result(name).is_ok(),
            *accepted,
            "{name}: {:?}",
            epoch_result(name).err()
        );
    }
    assert!(matches!(epoch_result("empty"), Err(DecodeError::Empty)));
    assert!(matches!(
        epoch_result("text"),
        Err(DecodeError::UnknownFormat)
    ));
    assert!(matches!(epoch_result("half"), Err(DecodeError::Truncated)));
    assert!(matches!(epoch_result("absent"), Err(DecodeError::Read(_))));
}

#[test]
fn a_header_that_claims_a_huge_image_is_refused_before_memory_is_taken() {
    let mut jpeg = fs::read(fixture("color_420.jpg")).unwrap();
    let frame = jpeg
        .windows(2)
        .position(|marker| marker == [0xFF, 0xC0])
        .unwrap();
    // T.81 B.2.2: length, precision, then height and width.
    jpeg[frame + 5..frame + 9].fill(0xFF);
    assert!(matches!(
        decode_bytes(&jpeg, 32),
        Err(DecodeError::TooManyPixels {
            width: 65535,
            height: 65535
        })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let jpeg = [&[0xFF, 0xD8], &tail[..], &[0xFF, 0xD9]].concat();
        let _ = decode_bytes(&jpeg, 8);
    }

    #[test]
    fn damaged_jpegs_never_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in 0.5..1.5f64,
    ) {
        let name = &INDEX.drawn[which.index(INDEX.drawn.len())].name;
        let mut jpeg = fs::read(fixture(&format!("{name}.jpg"))).unwrap();
        for (place, byte) in damage {
            let place = place.index(jpeg.len());
            jpeg[place] = byte;
        }
        jpeg.truncate((jpeg.len() as f64 * keep) as usize);
        jpeg.extend([0xFF, 0xD9]);
        if let Ok(image) = decode_bytes(&jpeg, 8) {
            prop_assert_eq!(image.len(), 8 * 8 * 3);
        }
    }
}
