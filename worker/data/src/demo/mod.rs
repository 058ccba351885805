//! The built-in demo set: ten classes of drawn shapes in Caltech101's folder layout, made
//! by the program itself, the same bytes on every machine.
//!
//! It puts the set in place, once, however many workers ask at the same time. `shapes`
//! and `canvas` decide what is drawn. It does not know how the set is used in training.

mod canvas;
mod random;
mod shapes;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use self::canvas::Canvas;
use self::shapes::Shape;
use super::DataError;
use common::manifest::CATEGORIES;

/// Written into the set. A set with another stamp is drawn anew, so raise this number
/// whenever any byte of an image changes.
const VERSION: &str = "drawn shapes 1\n";
const STAMP: &str = ".version";

/// Images in each class: enough that a ResNet18 that starts from random weights learns the
/// shapes within a few epochs at 48 px.
pub const IMAGES_PER_CLASS: usize = 200;

/// Makes sure that the demo set lies at `dir` and returns `dir`. Draws it (1 to 3 seconds)
/// where it is missing or of another version; workers that call this at the same time wait
/// for the one that draws. An interrupted drawing leaves nothing at `dir`.
///
/// # Errors
/// When `dir` holds something that is not a demo set, or cannot be written.
pub fn ensure(dir: &Path) -> Result<PathBuf, DataError> {
    place(dir, IMAGES_PER_CLASS)
}

fn place(dir: &Path, images_per_class: usize) -> Result<PathBuf, DataError> {
    if is_current(dir) {
        return Ok(dir.to_path_buf());
    }
    let lock_path = sibling(dir, "lock");
    if let Some(parent) = lock_path.parent() {
        fs::create_dir_all(parent).map_err(DataError::io("create the folder", parent))?;
    }
    let lock = File::create(&lock_path).map_err(DataError::io("create the lock", &lock_path))?;
    // Held until the file is closed, at the latest when this process ends.
    lock.lock().map_err(DataError::io("lock", &lock_path))?;
    if is_current(dir) {
        return Ok(dir.to_path_buf());
    }

    let part = sibling(dir, "part");
    remove(&part)?;
    draw_into(&part, images_per_class)?;
    if dir.exists() {
        if !dir.join(STAMP).is_file() && !is_empty(dir)? {
            return Err(DataError::NotADemoSet(dir.to_path_buf()));
        }
        remove(dir)?;
    }
    fs::rename(&part, dir).map_err(DataError::io("put the demo set at", dir))?;
    Ok(dir.to_path_buf())
}

fn draw_into(dir: &Path, images_per_class: usize) -> Result<(), DataError> {
    for (class, shape) in (0u64..).zip(Shape::ALL) {
        let folder = dir.join(CATEGORIES).join(shape.name());
        fs::create_dir_all(&folder).map_err(DataError::io("create the folder", &folder))?;
        for number in 1..=images_per_class as u64 {
            let path = folder.join(format!("image_{number:04}.jpg"));
            let jpeg = Canvas::draw(shape, class << 32 | number)
                .to_jpeg()
                .map_err(|error| DataError::Encode {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
            fs::write(&path, jpeg).map_err(DataError::io("write", &path))?;
        }
    }
    let stamp = dir.join(STAMP);
    fs::write(&stamp, VERSION).map_err(DataError::io("write", &stamp))
}

fn is_current(dir: &Path) -> bool {
    fs::read(dir.join(STAMP)).is_ok_and(|stamp| stamp == VERSION.as_bytes())
}

fn is_empty(dir: &Path) -> Result<bool, DataError> {
    let mut entries = fs::read_dir(dir).map_err(DataError::io("read the folder", dir))?;
    Ok(entries.next().is_none())
}

fn remove(dir: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DataError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

/// `data/demo` → `data/.demo.lock`: on the same disk, so that a rename is atomic.
fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or("demo".as_ref()).to_string_lossy();
    dir.with_file_name(format!(".{name}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::Manifest;
    use crate::decode::decode_bytes;

    #[test]
    fn workers_that_come_together_get_one_whole_set_and_old_ones_are_redrawn() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data/demo");
        thread::scope(|scope| {
            let both: Vec<_> = (0..2).map(|_| scope.spawn(|| place(&dir, 2))).collect();
            for one in both {
                assert_eq!(one.join().unwrap().unwrap(), dir);
            }
        });
        let drawn = Manifest::scan(&dir, None).unwrap();
        assert_eq!(drawn.files.len(), 20);
        assert!(
            drawn
                .classes
                .iter()
                .map(String::as_str)
                .eq(Shape::ALL.map(Shape::name))
        );

        fs::write(dir.join(STAMP), "drawn shapes 0\n").unwrap();
        fs::remove_file(drawn.location(3).unwrap()).unwrap();
        place(&dir, 2).unwrap();
        assert_eq!(Manifest::scan(&dir, None).unwrap(), drawn);

        let names: Vec<_> = fs::read_dir(dir.parent().unwrap())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "left over: {names:?}");
    }

    #[test]
    fn a_folder_that_is_no_demo_set_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = place(dir.path(), 1).unwrap_err();
        assert!(error.to_string().contains("is no demo set"), "{error}");
        assert!(dir.path().join("thesis.tex").exists());
        remove(&sibling(dir.path(), "part")).unwrap();
        fs::remove_file(sibling(dir.path(), "lock")).unwrap();
    }

    /// Workers on different machines each draw the set and must agree on it. When this
    /// digest changes on purpose, `VERSION` changes with it.
    #[test]
    fn the_bytes_are_these_on_every_machine() {
        let mut hash = Sha256::new();
        for (class, shape) in (0u64..).zip(Shape::ALL) {
            for number in 1..=4 {
                let jpeg = Canvas::draw(shape, class << 32 | number).to_jpeg().unwrap();
                assert_eq!(decode_bytes(&jpeg, 8).unwrap().len(), 8 * 8 * 3);
                hash.update(jpeg);
            }
        }
        assert_eq!(
            format!("{VERSION}{:x}", hash.finalize()),
            "drawn shapes 1\nb18f163a89328aa2be989497a8e8958b3b321375bca3110d2c826b1f5112533d"
        );
    }
}
