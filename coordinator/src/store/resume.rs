//! The run directory of a run that is resumed: opening it, and reading its files back. What is
//! done with them is the caller's decision.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use super::lock::Lock;
use super::{
    BEST_WEIGHTS, CONFIG, LOGS, METRICS, RunStore, SPLIT, Split, StoreError, atomic, epochs, header,
};

/// Where the coordinator listens, so that the one that takes over can listen there too.
pub const ADDRESS: &str = "address";

impl RunStore {
    /// Takes an existing run directory over; what a crash left half written is removed.
    ///
    /// # Errors
    /// [`StoreError::NotARun`], [`StoreError::Active`] when another coordinator holds it,
    /// [`StoreError::DamagedLine`] for `metrics.jsonl`, or it cannot be read or written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        if !root.join(CONFIG).is_file() {
            return Err(StoreError::NotARun {
                path: root.to_owned(),
            });
        }
        let lock = Lock::take(root)?;
        atomic::sweep(root).map_err(StoreError::write(root))?;
        let logs = root.join(LOGS);
        std::fs::create_dir_all(&logs).map_err(StoreError::write(&logs))?;
        let path = root.join(METRICS);
        let text = read_if_there(&path)?.unwrap_or_default();
        Ok(Self {
            root: root.to_owned(),
            epochs: epochs::decode(&text, &path)?,
            _lock: lock,
        })
    }

    /// The split as it was kept; `None` when the run ended before it was made.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Damaged`].
    pub fn read_split(&self) -> Result<Option<Split>, StoreError> {
        let path = self.root.join(SPLIT);
        let Some(text) = read_if_there(&path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&text) {
            Ok(split) => Ok(Some(split)),
            Err(error) => Err(StoreError::Damaged {
                path,
                what: error.to_string(),
            }),
        }
    }

    /// Removes the epochs after `last`: the run was rolled back and trains them again.
    ///
    /// # Errors
    /// The file cannot be written; it then holds the former lines.
    pub fn truncate_epochs(&mut self, last: u32) -> Result<(), StoreError> {
        let keep = self.epochs.partition_point(|record| record.epoch <= last);
        if keep < self.epochs.len() {
            self.write_epochs(&self.epochs[..keep])?;
            self.epochs.truncate(keep);
        }
        Ok(())
    }

    /// The epoch that [`BEST_WEIGHTS`] comes from; `None` when there are none, or they do not
    /// say.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Damaged`].
    pub fn best_epoch(&self) -> Result<Option<u32>, StoreError> {
        header::epoch(&self.root.join(BEST_WEIGHTS))
    }

    /// When the file `name` was last written, if it is there.
    pub(super) fn modified(&self, name: &str) -> Option<SystemTime> {
        let file = std::fs::metadata(self.root.join(name));
        file.and_then(|file| file.modified()).ok()
    }

    /// Keeps the address on which this coordinator listens.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_address(&self, address: SocketAddr) -> Result<(), StoreError> {
        self.write(ADDRESS, format!("{address}\n").as_bytes())
    }

    /// The address on which the last coordinator listened, if it came so far.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Damaged`].
    pub fn read_address(&self) -> Result<Option<SocketAddr>, StoreError> {
        let path = self.root.join(ADDRESS);
        let Some(bytes) = read_if_there(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        match text.trim_end().parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(StoreError::Damaged {
                path,
                what: "it holds no address with a port".to_owned(),
            }),
        }
    }
}

pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::read(path)(error)),
    }
}
