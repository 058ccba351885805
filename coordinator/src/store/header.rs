//! What the header of a `.safetensors` file tells about it; the tensors stay unread.
//!
//! Format (<https://github.com/huggingface/safetensors#format>): the header's length as 8 bytes,
//! little-endian; the header, a JSON object; the tensors. Text about the file stands in the
//! object under `__metadata__`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;

use super::StoreError;

/// The longest header that the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
}

/// The epoch whose weights `path` holds; `None` when there is no file, or it does not say.
///
/// # Errors
/// [`StoreError::Read`], or [`StoreError::Damaged`] when it is no such file.
pub(super) fn epoch(path: &Path) -> Result<Option<u32>, StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::read(path)(error)),
    };
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged("it ends within its header".to_owned()),
            _ => StoreError::read(path)(error),
        })?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(damaged(format!(
            "its header would have {length} bytes, more than the format's {MAX_HEADER}"
        )));
    }
    // Grows with what is really there, so a short file with a long promise costs nothing.
    let mut text = Vec::new();
    file.take(length)
        .read_to_end(&mut text)
        .map_err(StoreError::read(path))?;
    if text.len() as u64 != length {
        return Err(damaged("it ends within its header".to_owned()));
    }
    let header: Header = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("its header cannot be read: {error}")))?;
    header
        .metadata
        .get("epoch")
        .map(|epoch| {
            epoch
                .parse()
                .map_err(|_| damaged(format!("its epoch is `{epoch}`, which is no number")))
        })
        .transpose()
}
