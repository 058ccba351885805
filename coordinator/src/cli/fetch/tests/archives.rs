//! Unpacking: the real layout, and archives that are not complete.

use std::io::Write;

use tar::EntryType::{Directory, Regular};

use super::server::{Reply, Server};
use super::*;
use crate::cli::fetch::extract;

/// A `.tar.gz` of (name, type, content).
fn tar_gz(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for &(name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(if kind == Directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for &(name, content) in entries {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn caltech101_is_downloaded_unpacked_and_then_left_alone() {
    let google = "./101_ObjectCategories/BACKGROUND_Google";
    let images = tar_gz(&[
        ("./101_ObjectCategories/", Directory, b""),
        (&format!("{google}/image_0001.jpg"), Regular, b"one"),
        (&format!("{google}/._image_0001.jpg"), Regular, b"finder"),
        (
            "./101_ObjectCategories/crab/image_0001.jpg",
            Regular,
            b"two",
        ),
        ("./elsewhere/image_0001.jpg", Regular, b"three"),
    ]);
    let zip = zip_of(&[
        (
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz",
            b"finder",
        ),
        ("caltech-101/101_ObjectCategories.tar.gz", &images),
        ("caltech-101/show_annotation.m", b"%"),
    ]);
    let sum = sha256(&zip);
    let server = Server::start(move |start, _| Reply::file(start, &zip));
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("caltech101");
    // What a killed process leaves behind.
    std::fs::create_dir_all(place.join(".unpacking/101_ObjectCategories/ant")).unwrap();
    let source = source(Target::Caltech101, &server.url, sum);

    assert_eq!(obtain(&source, home.path()).unwrap(), place);
    assert_eq!(names(&place), ["101_ObjectCategories"]);
    let folder = place.join("101_ObjectCategories");
    assert_eq!(names(&folder), ["BACKGROUND_Google", "crab"]);
    assert_eq!(names(&folder.join("BACKGROUND_Google")), ["image_0001.jpg"]);
    let crab = std::fs::read(folder.join("crab/image_0001.jpg")).unwrap();
    assert_eq!(crab, b"two");

    obtain(&source, home.path()).unwrap();
    assert_eq!(server.starts().len(), 1);
}

/// Unpacks `archive` in a fresh folder and checks that nothing but the archive remains.
fn refused(archive: &[u8]) -> String {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let file = place.join("archive");
    std::fs::write(&file, archive).unwrap();
    let error = extract::unpack(&file, &place).unwrap_err();
    assert!(error.to_string().contains("expected archive"), "{error}");
    assert_eq!(names(&place), ["archive"], "{error}");
    assert_eq!(names(home.path()), ["place"], "{error}");
    error.to_string()
}

#[test]
fn archives_that_are_cut_damaged_or_something_else_leave_nothing() {
    let crab = "101_ObjectCategories/crab/image_0001.jpg";
    let whole = tar_gz(&[(crab, Regular, &content())]);
    refused(&whole[..whole.len() / 2]);
    // All entries are there; only the checksum at the end of the gzip stream is not right.
    let mut damaged = whole.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    refused(&damaged);
    for other in [
        &b"<html>"[..],
        b"",
        &zip_of(&[("readme", b"")]),
        &tar_gz(&[]),
    ] {
        refused(other);
    }
}
