//! The decoded set: one tensor `[N, S, S, 3]` of uint8 on the CPU, in this process's memory
//! or in a file that all workers of a host map, so that each image is decoded once.
//!
//! It does not choose which images a worker decodes, nor where the file lies.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc;

use common::manifest::ManifestError;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::decode::{self, DecodeError};
use super::{DataError, Manifest, bytes_needed};

/// Images as decoded bytes, by manifest index.
#[derive(Debug)]
pub struct Cache {
    /// uint8 `[N, S, S, 3]`, contiguous.
    pixels: Tensor,
    images: usize,
    size: i64,
}

/// A file that could not be decoded; its pixels in the cache are black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// Index in the manifest.
    pub index: u32,
    /// Path relative to the folder of classes.
    pub path: String,
    /// The error, as text that follows the path.
    pub reason: String,
}

impl Cache {
    /// A cache for `images` images of `size`×`size`: in memory without `file`, else mapped
    /// from that file, which is created if it is missing and extended to the size. The former
    /// content of the file stays until [`fill`](Self::fill) overwrites it.
    ///
    /// # Errors
    /// When the file cannot be created or the disk has no space for it.
    pub fn open(file: Option<&Path>, images: usize, size: i64) -> Result<Self, DataError> {
        let bytes = bytes_needed(images, size);
        let options = (Kind::Uint8, Device::Cpu);
        let flat = match file {
            None => Tensor::f_zeros([bytes as i64], options)?,
            Some(path) => {
                reserve(path, bytes)?;
                let name = path
                    .to_str()
                    .ok_or_else(|| DataError::from(ManifestError::NotUtf8(path.to_path_buf())))?;
                Tensor::f_from_file(name, true, bytes as i64, options)?
            }
        };
        Ok(Self {
            pixels: flat.f_view([images as i64, size, size, 3])?,
            images,
            size,
        })
    }

    /// Another handle to the same pixels, for another thread: nothing is copied.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            pixels: self.pixels.shallow_clone(),
            ..*self
        }
    }

    /// The number of images in the cache.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// All pixels: uint8 `[N, S, S, 3]` on the CPU.
    pub(crate) fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// The side S of each image, in pixels.
    #[must_use]
    pub fn size(&self) -> i64 {
        self.size
    }

    /// Decodes the images with these manifest indices on `threads` threads of its own and
    /// stores them; the calling thread only copies. `progress` is called with the number done.
    /// Returns the files that could not be decoded, by index; their pixels are set to black.
    ///
    /// # Errors
    /// On an index outside the manifest or the cache, or when no threads can be started.
    pub fn fill(
        &self,
        manifest: &Manifest,
        indices: &[u32],
        threads: usize,
        progress: impl Fn(usize) + Sync,
    ) -> Result<Vec<BadFile>, DataError> {
        let images = self.images.min(manifest.files.len());
        in_range(indices, images)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|number| format!("decode-{number}"))
            .build()
            .map_err(|error| DataError::Threads {
                threads,
                reason: error.to_string(),
            })?;

        let side = self.size as u32;
        // Bounded, so that decoded images do not pile up behind a slow disk.
        let (sender, receiver) = mpsc::sync_channel(4 * threads.max(1));
        pool.in_place_scope(|scope| {
            scope.spawn(move |_| {
                // A send fails once the collector has returned with an error: then stop.
                let _ = indices
                    .par_iter()
                    .try_for_each_with(sender, |sender, &index| {
                        let path = manifest.root.join(&manifest.files[index as usize].path);
                        sender.send((index, decode::decode(&path, side)))
                    });
            });
            self.collect(manifest, receiver, progress)
        })
    }

    fn collect(
        &self,
        manifest: &Manifest,
        decoded: mpsc::Receiver<(u32, Result<Vec<u8>, DecodeError>)>,
        progress: impl Fn(usize),
    ) -> Result<Vec<BadFile>, DataError> {
        let mut bad = Vec::new();
        for (done, (index, image)) in decoded.into_iter().enumerate() {
            let mut place = self.pixels.f_select(0, i64::from(index))?;
            match image {
                Ok(bytes) => {
                    place.f_copy_(&Tensor::f_from_slice(&bytes)?.f_view_as(&place)?)?;
                }
                Err(error) => {
                    // The file may hold an image of an earlier run here.
                    let _ = place.f_zero_()?;
                    let path = manifest.files[index as usize].path.clone();
                    bad.push(BadFile {
                        index,
                        path,
                        reason: error.to_string(),
                    });
                }
            }
            progress(done + 1);
        }
        bad.sort_unstable_by_key(|file| file.index);
        Ok(bad)
    }

    /// The images with these indices, in this order: uint8 `[B, S, S, 3]` on the CPU, a copy.
    ///
    /// # Errors
    /// On an index that is out of range.
    pub fn batch(&self, indices: &[u32]) -> Result<Tensor, DataError> {
        in_range(indices, self.images)?;
        let indices: Vec<i64> = indices.iter().map(|&index| i64::from(index)).collect();
        Ok(self
            .pixels
            .f_index_select(0, &Tensor::f_from_slice(&indices)?)?)
    }
}

pub(crate) fn in_range(indices: &[u32], images: usize) -> Result<(), DataError> {
    match indices.iter().find(|&&index| index as usize >= images) {
        Some(&index) => Err(DataError::IndexOutOfRange { index, images }),
        None => Ok(()),
    }
}

/// Makes the file at least `bytes` long with its blocks on disk. Writing to a mapped page
/// that the disk has no block for kills the process, so a full disk has to be detected here.
fn reserve(path: &Path, bytes: u64) -> Result<(), DataError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(DataError::io("open the image cache", path))?;
    let no_room = |error: rustix::io::Errno| DataError::NoRoom {
        path: path.to_path_buf(),
        bytes,
        source: error.into(),
    };
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // Some network file systems cannot allocate blocks: check how many are free instead.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let room = rustix::fs::fstatvfs(&file).map_err(no_room)?;
            if room.f_bavail.saturating_mul(room.f_frsize) < bytes {
                return Err(no_room(rustix::io::Errno::NOSPC));
            }
            let length = file
                .metadata()
                .map_err(DataError::io("inspect", path))?
                .len();
            file.set_len(length.max(bytes))
                .map_err(DataError::io("grow", path))
        }
        Err(error) => Err(no_room(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Three grey images of 16×16, levels 40, 80 and 120, the middle one broken.
    fn manifest() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        for (class, name, level) in [("a", "1.jpg", 40), ("a", "2.jpg", 80), ("b", "3.jpg", 120)] {
            fs::create_dir_all(dir.path().join(class)).unwrap();
            let mut jpeg = Vec::new();
            jpeg_encoder::Encoder::new(&mut jpeg, 100)
                .encode(&[level; 256], 16, 16, jpeg_encoder::ColorType::Luma)
                .unwrap();
            if level == 80 {
                jpeg.truncate(jpeg.len() - 2);
            }
            fs::write(dir.path().join(class).join(name), jpeg).unwrap();
        }
        let manifest = Manifest::scan(dir.path(), None).unwrap();
        (dir, manifest)
    }

    fn levels(batch: &Tensor) -> Vec<i64> {
        let flat = batch.view([batch.size()[0], -1]);
        assert_eq!(flat.amin([1], false), flat.amax([1], false));
        Vec::try_from(flat.select(1, 0).to_kind(Kind::Int64)).unwrap()
    }

    #[test]
    fn fills_reports_bad_files_and_gathers_in_the_order_asked_for() {
        let (_dir, manifest) = manifest();
        let cache = Cache::open(None, 3, 8).unwrap();
        let heard = AtomicUsize::new(0);
        let bad = cache
            .fill(&manifest, &[2, 1, 0], 2, |done| {
                heard.store(done, Ordering::Relaxed)
            })
            .unwrap();
        assert_eq!(heard.into_inner(), 3);
        let reason = "is truncated: no end-of-image marker".to_owned();
        assert_eq!(
            bad,
            [BadFile {
                index: 1,
                path: "a/2.jpg".into(),
                reason
            }]
        );

        let batch = cache.batch(&[2, 1, 0, 2]).unwrap();
        assert_eq!(batch.size(), [4, 8, 8, 3]);
        assert_eq!(levels(&batch), [120, 0, 40, 120]);
        assert_eq!(cache.batch(&[]).unwrap().size(), [0, 8, 8, 3]);
        assert!(matches!(
            cache.batch(&[0, 3]),
            Err(DataError::IndexOutOfRange {
                index: 3,
                images: 3
            })
        ));
    }

    #[test]
    fn two_caches_on_one_file_see_each_others_images_and_nothing_stale() {
        let (dir, manifest) = manifest();
        let file = dir.path().join("cache.bin");
        fs::write(&file, vec![255u8; bytes_needed(3, 8) as usize]).unwrap();
        let one = Cache::open(Some(&file), 3, 8).unwrap();
        let two = Cache::open(Some(&file), 3, 8).unwrap();
        assert_eq!(one.fill(&manifest, &[0, 1], 1, |_| ()).unwrap().len(), 1);
        assert_eq!(two.fill(&manifest, &[2], 1, |_| ()).unwrap(), []);
        for cache in [&one, &two.share()] {
            assert_eq!(levels(&cache.batch(&[0, 1, 2]).unwrap()), [40, 0, 120]);
        }
    }
}
