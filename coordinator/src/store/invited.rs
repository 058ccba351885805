//! What lets the workers of a former coordinator in to the next one: they hold the state of the
//! run, and a token that only the one that spawned them knew. Kept are digests: that of a random
//! token tells nothing about it.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::resume::read_if_there;
use super::{RunStore, StoreError};

/// By what workers that were spawned for the run are let in.
pub const INVITED: &str = "invited.json";

/// The spawned workers' way in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invited {
    /// Where they connect, when that is not the address for all.
    pub apart: Option<SocketAddr>,
    /// The sha256 of each random token they may hold.
    pub digests: Vec<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apart: Option<SocketAddr>,
    sha256: Vec<String>,
}

impl RunStore {
    /// Keeps the way in for the next coordinator.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_invited(&self, invited: &Invited) -> Result<(), StoreError> {
        let file = File {
            apart: invited.apart,
            sha256: invited
                .digests
                .iter()
                .map(|sum| HEXLOWER.encode(sum))
                .collect(),
        };
        let text = serde_json::to_vec(&file).map_err(|error| StoreError::Damaged {
            path: self.root.join(INVITED),
            what: error.to_string(),
        })?;
        self.write(INVITED, &text)
    }

    /// What the last coordinator kept; nothing when it did not come so far.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Damaged`].
    pub fn read_invited(&self) -> Result<Invited, StoreError> {
        let path = self.root.join(INVITED);
        let Some(bytes) = read_if_there(&path)? else {
            return Ok(Invited::default());
        };
        let damaged = |what: String| StoreError::Damaged {
            path: path.clone(),
            what,
        };
        let file: File =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let digests = file
            .sha256
            .iter()
            .map(|text| HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok());
        Ok(Invited {
            apart: file.apart,
            digests: digests
                .collect::<Option<_>>()
                .ok_or_else(|| damaged("it holds what is no sha256".to_owned()))?,
        })
    }
}
