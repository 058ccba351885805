//! Unpacking: the real layout, archives that mean harm, archives that are not whole.

use super::server::{Reply, Server};
use super::*;
use crate::cli::fetch::extract;
use std::io::Write;
use tar::EntryType::{Directory, Link, Regular, Symlink};

/// A `.tar.gz` of (name, type, content). Names go into the header raw, as an attacker's would.
fn tar_gz(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for &(name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name("/etc").unwrap();
        }
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

fn images() -> Vec<u8> {
    tar_gz(&[
        ("./101_ObjectCategories/", Directory, b""),
        (
            "./101_ObjectCategories/BACKGROUND_Google/image_0001.jpg",
            Regular,
            b"one",
        ),
        (
            "./101_ObjectCategories/BACKGROUND_Google/._image_0001.jpg",
            Regular,
            b"finder",
        ),
        (
            "./101_ObjectCategories/crab/image_0001.jpg",
            Regular,
            b"two",
        ),
        ("./elsewhere/image_0001.jpg", Regular, b"three"),
    ])
}

#[test]
fn caltech101_is_downloaded_unpacked_and_then_left_alone() {
    let zip = zip_of(&[
        (
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz",
            b"finder",
        ),
        ("caltech-101/101_ObjectCategories.tar.gz", &images()),
        ("caltech-101/show_annotation.m", b"%"),
    ]);
    let sum = sha256(&zip);
    let server = Server::start(move |request, _| Reply::file(request, &zip, ETAG));
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("caltech101");
    // What a killed process leaves behind.
    std::fs::create_dir_all(place.join(".unpacking-old/101_ObjectCategories/ant")).unwrap();
    let source = source(Target::Caltech101, &server, sum);

    assert_eq!(obtain(&source, home.path()).unwrap(), place);
    assert_eq!(names(&place), ["101_ObjectCategories"]);
    let folder = place.join("101_ObjectCategories");
    assert_eq!(names(&folder), ["BACKGROUND_Google", "crab"]);
    assert_eq!(names(&folder.join("BACKGROUND_Google")), ["image_0001.jpg"]);
    assert_eq!(
        std::fs::read(folder.join("crab/image_0001.jpg")).unwrap(),
        b"two"
    );

    obtain(&source, home.path()).unwrap();
    assert_eq!(server.requests().len(), 1);
}

/// Unpacks `archive` in a fresh folder and checks that nothing but the archive remains.
fn refused(archive: &[u8], limits: &Limits) -> FetchError {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let file = place.join("archive");
    std::fs::write(&file, archive).unwrap();
    let error = extract::unpack(&file, &place, limits, &Console::Silent).unwrap_err();
    assert_eq!(names(&place), ["archive"], "{error}");
    assert_eq!(names(home.path()), ["place"], "{error}");
    error
}

#[test]
fn archives_that_reach_outside_are_refused() {
    let ok = (
        "101_ObjectCategories/crab/image_0001.jpg",
        Regular,
        &b"fine"[..],
    );
    for (name, kind) in [
        ("101_ObjectCategories/../../evil", Regular),
        ("../evil", Regular),
        ("/tmp/evil", Regular),
        ("101_ObjectCategories/link", Symlink),
        ("101_ObjectCategories/link", Link),
        ("101_ObjectCategories/null", tar::EntryType::Char),
    ] {
        let error = refused(&tar_gz(&[ok, (name, kind, b"")]), &Limits::default());
        assert!(
            matches!(&error, FetchError::UnsafeArchive { entry, .. } if entry == name),
            "{name}: {error}"
        );
    }
    let zip = zip_of(&[
        ("../evil", b"evil"),
        ("101_ObjectCategories.tar.gz", &images()),
    ]);
    let error = refused(&zip, &Limits::default());
    assert!(matches!(error, FetchError::UnsafeArchive { .. }), "{error}");
}

#[test]
fn archives_that_are_cut_damaged_or_unbounded_leave_nothing() {
    let noise = content();
    let whole = tar_gz(&[("101_ObjectCategories/crab/image_0001.jpg", Regular, &noise)]);
    let error = refused(&whole[..whole.len() / 2], &Limits::default());
    assert!(matches!(error, FetchError::BadArchive { .. }), "{error}");
    // All entries are there; only the checksum at the end of the gzip stream is not right.
    let mut damaged = whole.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    let error = refused(&damaged, &Limits::default());
    assert!(matches!(error, FetchError::BadArchive { .. }), "{error}");
    for other in [
        &b"<html>"[..],
        b"",
        &zip_of(&[("readme", b"")]),
        &tar_gz(&[]),
    ] {
        let error = refused(other, &Limits::default());
        assert!(matches!(error, FetchError::BadArchive { .. }), "{error}");
    }

    let zeros = vec![0; 4 << 20];
    let bomb = tar_gz(&[("101_ObjectCategories/crab/image_0001.jpg", Regular, &zeros)]);
    assert!(bomb.len() < zeros.len() / 100);
    let error = refused(
        &bomb,
        &Limits {
            bytes: 1 << 20,
            entries: 10,
        },
    );
    assert!(
        matches!(error, FetchError::ArchiveTooLarge { .. }),
        "{error}"
    );
    let error = refused(
        &images(),
        &Limits {
            bytes: 1 << 20,
            entries: 3,
        },
    );
    assert!(
        matches!(error, FetchError::ArchiveTooLarge { .. }),
        "{error}"
    );
}
