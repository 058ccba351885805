//! Pictures of every format against Pillow's `convert("RGB")`, by what
//! `fixtures/record_formats.py` recorded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use worker_data::decode::{DecodeError, decode, decode_bytes};

const SIDE: u32 = 16;
/// Grey levels, averaged over an image, where both decode with loss.
const LOSSY: f64 = 1.0;
/// Elsewhere only the resizing rounds.
const LOSSLESS: f64 = 0.3;

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    folder.join(name)
}

#[test]
fn pictures_of_every_format_have_the_pixels_of_pillow() {
    let names: Vec<String> =
        serde_json::from_slice(&fs::read(fixture("index.json")).unwrap()).unwrap();
    assert!(names.len() > 40);
    let mut wrong = Vec::new();
    for name in &names {
        let expected = fs::read(fixture(&format!("{name}.rgb"))).unwrap();
        match decode(&fixture(name), SIDE) {
            Err(error) => wrong.push(format!("{name} {error}")),
            Ok(ours) => {
                let off = ours.iter().zip(&expected);
                let sum: f64 = off.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
                let mean = sum / expected.len() as f64;
                let lossy = ["lossy", "jp"].iter().any(|part| name.contains(part));
                if mean > if lossy { LOSSY } else { LOSSLESS } {
                    wrong.push(format!("{name} is {mean:.2} off on average"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_picture_that_is_cut_off_or_claims_too_much_is_refused() {
    let png = fs::read(fixture("rgb.png")).unwrap();
    let cut = decode_bytes(&png[..png.len() / 2], SIDE);
    assert!(matches!(cut, Err(DecodeError::Corrupt(_))), "{cut:?}");
    let mut huge = fs::read(fixture("rgb.ppm")).unwrap();
    huge.splice(3..8, *b"99999 99999");
    let huge = decode_bytes(&huge, SIDE);
    assert!(
        matches!(huge, Err(DecodeError::TooManyPixels { .. })),
        "{huge:?}"
    );
    let text = decode_bytes(b"<svg></svg>", SIDE);
    assert!(matches!(text, Err(DecodeError::UnknownFormat)), "{text:?}");
}
