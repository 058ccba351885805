//! The decoder against Pillow, on random JPEGs of every kind: colour spaces, sampling, scans,
//! restart markers, progressive and arithmetic coding. `fixtures/record_jpegs.py` drew them and
//! recorded Pillow's pixels; `JPEGS` names another file that it wrote.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use worker_data::decode::decode_bytes;

const SIDE: u32 = 8;
/// Grey levels, averaged over an image. zune-jpeg rounds otherwise than libjpeg.
const LIMIT: f64 = 1.5;

#[test]
fn random_jpegs_come_out_as_pillow_makes_them() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpegs.bin");
    let path = std::env::var_os("JPEGS").map_or(recorded, PathBuf::from);
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut number, mut worst) = (&bytes[..], 0, 0.0_f64);
    let mut wrong = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (jpeg, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        let (expected, more) = more.split_at((3 * SIDE * SIDE) as usize);
        rest = more;
        match decode_bytes(jpeg, SIDE) {
            Err(error) => wrong.push(format!("number {number} {error}")),
            Ok(ours) => {
                let off = ours.iter().zip(expected);
                let sum: f64 = off.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
                let mean = sum / expected.len() as f64;
                worst = worst.max(mean);
                if mean > LIMIT {
                    wrong.push(format!("number {number} is {mean:.2} off on average"));
                }
            }
        }
        number += 1;
    }
    println!("{number} files, the worst {worst:.2} off on average");
    assert!(number >= 300);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
