//! The folder of the checkpoints: what lies there, the pointer, and what a crash left behind.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use super::{Checkpoints, KEEP, LATEST, Position, manifest, position};
use crate::store::{StoreError, atomic};

/// The prefix of the name of a checkpoint while one of the same position replaces it.
const REPLACED: &str = ".replaced-";
/// More of the pointer is not read.
const LONGEST: u64 = 256;

impl Checkpoints {
    /// Positions of all checkpoints, valid or corrupt, newest first.
    pub(super) fn positions(&self) -> Result<Vec<Position>, StoreError> {
        let mut positions: Vec<_> = self
            .names("")?
            .iter()
            .filter_map(|name| position::parse(name))
            .collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(positions)
    }

    /// The text of the pointer.
    pub(super) fn latest(&self) -> Result<Option<String>, StoreError> {
        let path = self.folder.join(LATEST);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::read(&path)(error)),
        }
    }

    /// Lets the pointer name a checkpoint, or takes it away.
    pub(super) fn point_to(&self, position: Option<Position>) -> Result<(), StoreError> {
        let path = self.folder.join(LATEST);
        match position {
            Some(position) => atomic::write(&path, |file| {
                file.write_all(position::name(position).as_bytes())
            }),
            None => std::fs::remove_file(&path).and_then(|()| atomic::sync(&self.folder)),
        }
        .map_err(StoreError::write(&path))
    }

    /// Gives way to a new checkpoint at `position`; whether there was one. Until the new one is
    /// there, [`Checkpoints::put_back`] undoes it.
    pub(super) fn set_aside(&self, position: Position) -> io::Result<bool> {
        let aside = self
            .folder
            .join(format!("{REPLACED}{}", position::name(position)));
        // One that an earlier crash left: `position` has been valid since.
        if aside.exists() && self.path(position).exists() {
            atomic::remove_directory(&aside)?;
        }
        match std::fs::rename(self.path(position), aside) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Undoes [`Checkpoints::set_aside`] where no new checkpoint came, else finishes it.
    pub(super) fn put_back(&self) -> Result<(), StoreError> {
        for name in self.names(REPLACED)? {
            let aside = self.folder.join(&name);
            let place = self.folder.join(&name[REPLACED.len()..]);
            let done = if place.exists() {
                atomic::remove_directory(&aside)
            } else {
                std::fs::rename(&aside, &place).and_then(|()| atomic::sync(&self.folder))
            };
            done.map_err(StoreError::write(&aside))?;
        }
        Ok(())
    }

    /// Removes all but the newest [`KEEP`] and the one that the pointer names. One that is
    /// obviously corrupt does not count.
    pub(super) fn prune(&self) -> Result<(), StoreError> {
        let latest = self.latest()?;
        let mut kept = 0;
        for position in self.positions()? {
            let sound = manifest::open(&self.path(position), position).is_ok();
            if sound && kept < KEEP {
                kept += 1;
            } else if latest.as_deref() != Some(&position::name(position)) {
                self.remove(position)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, position: Position) -> Result<(), StoreError> {
        let path = self.path(position);
        atomic::remove_directory(&path).map_err(StoreError::write(&path))
    }

    /// Names in the folder that begin with `prefix`; none when there is no folder yet.
    fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let failed = StoreError::read(&self.folder);
        let names = |entries: std::fs::ReadDir| -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in entries {
                if let Ok(name) = entry?.file_name().into_string()
                    && name.starts_with(prefix)
                {
                    names.push(name);
                }
            }
            Ok(names)
        };
        match std::fs::read_dir(&self.folder).and_then(names) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(failed),
        }
    }
}
