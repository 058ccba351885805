//! The file that local workers map into memory to share their decoded images. It has no name in any
//! folder, so the kernel frees it when the last process that has it open ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

const SHARED_MEMORY: &str = "/dev/shm";

/// An open file without a name, which other processes of this user open through `/proc`.
#[derive(Debug)]
pub struct CacheFile(File);

impl CacheFile {
    /// A file for `bytes` bytes: in shared memory when that takes at most half of what is free
    /// there, else in `directory`.
    ///
    /// # Errors
    /// The file cannot be created in either place.
    pub fn create(bytes: u64, directory: &Path) -> io::Result<Self> {
        let free = rustix::fs::statvfs(SHARED_MEMORY).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        let file = if bytes <= free / 2 {
            tempfile::tempfile_in(SHARED_MEMORY).or_else(|_| tempfile::tempfile_in(directory))?
        } else {
            tempfile::tempfile_in(directory)?
        };
        file.set_len(bytes)?;
        Ok(Self(file))
    }

    /// The path by which other processes open it while this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_opening_sees_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = CacheFile::create(4096, directory.path()).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(cache.path())
            .and_then(|mut file| io::Write::write_all(&mut file, b"hello"))
            .unwrap();
        let mut begin = [0; 5];
        std::os::unix::fs::FileExt::read_exact_at(&cache.0, &mut begin, 0).unwrap();
        assert_eq!(&begin, b"hello");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "it has no name"
        );
    }
}
